# cupbearer alone: one static binary, the system's certificate authorities, no shell, no root.
#
#   docker build -t cupbearer .
#   docker run --rm cupbearer --help

FROM rust:1-alpine AS build
RUN apk add --no-cache build-base ca-certificates-bundle
WORKDIR /src
COPY . .
# The caches keep dependencies between builds; what is in them never reaches the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin cupbearer \
    && cp target/release/cupbearer /cupbearer

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /cupbearer /cupbearer
USER 65532:65532
# No HEALTHCHECK yet: it comes with the admin listener's /healthz.
ENTRYPOINT ["/cupbearer"]
CMD ["serve", "-c", "/etc/cupbearer/proxy.toml"]

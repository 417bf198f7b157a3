//! Programs that people really use, as callers and as upstreams: those of nghttp2, curl, slowhttptest, the libraries `websockets` and grpcio.

mod curl;
mod grpc;
mod nghttp2;
mod slowhttptest;
mod websockets;

use crate::support::{Builder, Ca, Cupbearer, Upstream};

/// A proxy on a plain and on a TLS port, with its CA as `ca.pem` beside the configuration.
struct Front {
    proxy: Cupbearer,
    _tokens: Upstream,
}

impl Front {
    /// With these routes: prefix, upstream, further lines.
    fn start(routes: &[(&str, &str, &str)]) -> Self {
        Self::with(&Ca::new(), Cupbearer::builder(), routes, "ca.pem")
    }

    /// The same with a certificate of `ca`; those of upstreams are of `roots`, a file.
    fn with(ca: &Ca, builder: Builder, routes: &[(&str, &str, &str)], roots: &str) -> Self {
        let tokens = Upstream::tokens(3600);
        let builder = builder.env("SECRET", "not-a-secret").listen_both();
        let (certificate, key) = ca.issue(&["localhost"]);
        builder.file("tls.crt", certificate);
        builder.file("tls.key", key);
        builder.file("ca.pem", ca.pem());
        let credential = format!(
            "[credentials.c]\nclient_id = \"id\"\nclient_secret = {{ env = \"SECRET\" }}\nclient_auth = \"post\"\n\
             token_url = \"{}/token\"\nca_file = \"{roots}\"\n",
            tokens.url()
        );
        let route = |(prefix, upstream, lines): &(&str, &str, &str)| {
            format!("[[routes]]\nprefix = \"{prefix}\"\nupstream = \"{upstream}\"\ncredential = \"c\"\n{lines}\n")
        };
        let config = [credential].into_iter().chain(routes.iter().map(route)).collect::<Vec<_>>().concat();
        Self { proxy: builder.start(&config), _tokens: tokens }
    }

    /// `http://127.0.0.1:PORT`
    fn url(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// `https://localhost:PORT`
    fn tls_url(&self) -> String {
        self.proxy.tls_url()
    }

    /// Its CA's certificate.
    fn ca(&self) -> String {
        self.proxy.dir().join("ca.pem").display().to_string()
    }

    /// Ends it; nothing secret was printed.
    fn end(self) {
        self.proxy.expect_never_printed(&["not-a-token", "not-a-secret", "panicked"]);
        self.proxy.stop();
    }
}

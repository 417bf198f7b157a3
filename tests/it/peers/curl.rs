//! curl as a caller, in every version of HTTP, with nginx behind the proxy.

use std::fs;

use super::Front;
use crate::support::{Ca, Cupbearer, Nginx, TestDir, Upstream, noise, tool};

const SERVER: &str = r#"
    if ($http_authorization != "Bearer not-a-token-1") { return 401; }
    location /static/ { alias DIR/static/; }
    location /upload/ { alias DIR/upload/; dav_methods PUT; client_max_body_size 0; create_full_put_path on; }
    location /small/ { alias DIR/upload/; dav_methods PUT; client_max_body_size 1k; }
    location /packed/ { gzip on; gzip_min_length 1; gzip_types *; gzip_proxied any; alias DIR/static/; }
"#;
/// The upstreams: HTTP/1.1 in plain text and over TLS, HTTP/2.
const PREFIXES: [&str; 3] = ["/plain", "/tls", "/h2"];

struct Setup {
    nginx: Nginx,
    front: Front,
    page: Vec<u8>,
}

fn setup() -> Setup {
    let dir = TestDir::new();
    let page = noise(300_000);
    dir.write("static/page.bin", &page);
    dir.write("static/page.html", "<p>hello</p>\n".repeat(3000));
    dir.write("upload/.keep", "");
    let nginx = Nginx::start(dir, SERVER);
    let front = Front::with(
        &Ca::new(),
        Cupbearer::builder(),
        &[
            ("/plain", &nginx.url(), ""),
            ("/tls", &nginx.tls_url(), "http = \"h1\""),
            ("/h2", &nginx.h2_url(), "http = \"h2\""),
        ],
        &nginx.ca_file().display().to_string(),
    );
    Setup { nginx, front, page }
}

/// The ways to call: arguments, the start of the URL, the version that is spoken.
fn callers(front: &Front) -> [(Vec<String>, String, &'static str); 4] {
    let words = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
    let tls = |version: &str| words(&format!("{version} --cacert {}", front.ca()));
    [
        (words("--http1.1"), front.url(), "1.1"),
        (words("--http2-prior-knowledge"), front.url(), "2"),
        (tls("--http1.1"), front.tls_url(), "1.1"),
        (tls("--http2"), front.tls_url(), "2"),
    ]
}

/// What curl writes to standard output.
fn curl(args: &[String], more: &[&str], url: &str) -> Vec<u8> {
    let mut all: Vec<&str> = vec!["-sS", "-m", "25"];
    all.extend(args.iter().map(String::as_str));
    all.extend(more);
    all.push(url);
    tool("curl", &all)
}

fn text(args: &[String], more: &[&str], url: &str) -> String {
    String::from_utf8(curl(args, more, url)).expect("text")
}

#[test]
#[ignore = "needs curl and nginx: run tests/run"]
fn curl_reads_files_parts_and_heads_in_every_mix_of_versions() {
    let setup = setup();
    for (args, base, version) in callers(&setup.front) {
        for prefix in PREFIXES {
            let url = format!("{base}{prefix}/static/page.bin");
            let out = setup.front.proxy.dir().join("out").display().to_string();
            let told = text(&args, &["-o", &out, "-w", "%{http_version} %{http_code}"], &url);
            assert_eq!(told, format!("{version} 200"), "{args:?} {url}");
            assert!(fs::read(&out).expect("curl wrote it") == setup.page, "{args:?} {url}: other bytes");

            let head = text(&args, &["-I"], &url).to_ascii_lowercase();
            assert!(head.contains("content-length: 300000\r\n"), "{head}");
            let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("nginx sends one").to_owned();

            assert!(curl(&args, &["-r", "500-999"], &url) == setup.page[500..1000], "{args:?} {url}: another part");
            assert!(curl(&args, &["-r", "-10"], &url) == setup.page[299_990..], "{args:?} {url}: another end");
            let several = curl(&args, &["-i", "-r", "0-9,100-109"], &url);
            let several = String::from_utf8_lossy(&several).to_ascii_lowercase();
            assert!(several.contains("content-type: multipart/byteranges; boundary="), "{several}");
            assert_eq!(several.matches("content-range: bytes ").count(), 2, "{several}");
            let outside = text(&args, &["-o", &out, "-w", "%{http_code}", "-r", "300000-"], &url);
            assert_eq!(outside, "416");
            let condition = format!("If-None-Match: {etag}");
            assert_eq!(text(&args, &["-w", "%{http_code}", "-H", &condition], &url), "304");
        }
    }
    setup.front.end();
}

#[test]
#[ignore = "needs curl and nginx: run tests/run"]
fn compressed_bodies_reach_curl_as_nginx_sent_them() {
    let setup = setup();
    let direct = format!("{}/packed/page.html", setup.nginx.url());
    let asked = ["-H", "Accept-Encoding: gzip"];
    let bare = ["-H".to_owned(), "Authorization: Bearer not-a-token-1".to_owned()];
    let packed = curl(&bare, &asked, &direct);
    assert!(packed.starts_with(&[0x1f, 0x8b]) && packed.len() < 2000);
    for (args, base, _) in callers(&setup.front) {
        for prefix in PREFIXES {
            let url = format!("{base}{prefix}/packed/page.html");
            assert!(curl(&args, &asked, &url) == packed, "{args:?} {url}: other bytes");
            let head = text(&args, &["-o", "/dev/null", "-D", "-", "-H", "Accept-Encoding: gzip"], &url);
            assert!(head.to_ascii_lowercase().contains("content-encoding: gzip\r\n"), "{head}");
            assert_eq!(text(&args, &["--compressed"], &url), "<p>hello</p>\n".repeat(3000));
        }
    }
    setup.front.end();
}

#[test]
#[ignore = "needs curl and nginx: run tests/run"]
fn what_curl_uploads_is_stored_byte_for_byte() {
    let setup = setup();
    let body = noise(1_200_000);
    let file = setup.front.proxy.dir().join("body");
    fs::write(&file, &body).expect("written");
    let file = file.display().to_string();
    for (number, (args, base, _)) in callers(&setup.front).into_iter().enumerate() {
        for prefix in PREFIXES {
            let name = format!("{number}{}", &prefix[1..]);
            let stored = |what: &str| {
                let path = setup.nginx.dir().join(format!("upload/{name}-{what}"));
                assert!(fs::read(path).expect("nginx stored it") == body, "{args:?} {prefix} {what}: other bytes");
            };
            let url = |what: &str| format!("{base}{prefix}/upload/{name}-{what}");
            // With a length that large curl says `Expect: 100-continue`, and waits for the answer.
            let patient = ["--expect100-timeout", "20", "-w", "%{http_code}", "-T", &file];
            assert_eq!(text(&args, &patient, &url("sized")), "201");
            stored("sized");
            // From standard input nobody knows the length: chunks.
            let command =
                format!("curl -sS -m 25 {} -w '%{{http_code}}' -T - {} < {file}", args.join(" "), url("piped"));
            assert_eq!(String::from_utf8(tool("sh", &["-c", &command])).expect("text"), "201");
            stored("piped");
        }
    }
    setup.front.end();
}

#[test]
#[ignore = "needs curl and nginx: run tests/run"]
fn an_expectation_that_nginx_refuses_is_refused_before_a_byte_is_sent() {
    let setup = setup();
    let file = setup.front.proxy.dir().join("body");
    fs::write(&file, noise(1_200_000)).expect("written");
    let file = file.display().to_string();
    for (args, base, version) in callers(&setup.front) {
        for prefix in PREFIXES {
            let url = format!("{base}{prefix}/small/x");
            let out = setup.front.proxy.dir().join("out").display().to_string();
            let asked = ["--expect100-timeout", "20", "-o", &out, "-w", "%{http_code} %{size_upload}", "-T", &file];
            let told = text(&args, &asked, &url);
            let (status, sent) = told.split_once(' ').expect("two numbers");
            assert_eq!(status, "413", "{args:?} {url}");
            assert!(version == "2" || sent == "0", "{args:?} {url}: {sent} bytes were sent all the same");
        }
    }
    setup.front.end();
}

#[test]
#[ignore = "needs curl: run tests/run"]
fn trailers_and_early_hints_reach_curl() {
    let api = Upstream::always(
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    let front = Front::start(&[("/api", &api.url(), "")]);
    for (args, base, version) in callers(&front) {
        let told = text(&args, &["-i"], &format!("{base}/api/x")).to_ascii_lowercase();
        assert!(told.starts_with(&format!("http/{version} 103")), "{told}");
        assert!(told.contains("link: </api/style.css>; rel=preload\r\n") && told.contains("ok"), "{told}");
        // curl tells trailers among the headers.
        let heads = text(&args, &["-o", "/dev/null", "-D", "-"], &format!("{base}/api/x")).to_ascii_lowercase();
        assert!(heads.contains("x-sum: 7"), "{heads}");
    }
    front.end();
}

//! gRPC (grpcio) on both sides: HTTP/2, trailers, deadlines.

use super::Front;
use crate::support::{Ca, Cupbearer, Process, PythonServer, TestDir, python};

fn call(front: &Front, tls: bool) -> String {
    let mut command = python("grpc/client.py");
    if tls {
        command.arg(front.tls_url().trim_start_matches("https://")).arg(front.ca());
    } else {
        command.arg(front.proxy.address().to_string());
    }
    let (status, output) = Process::spawn("grpc", &mut command).finish();
    assert!(status.success(), "{output}");
    output
}

/// A credential that gets no token, and its route.
const TOKENLESS: &str = "http = \"h2\"\n[credentials.none]\nclient_id = \"id\"\nclient_secret = { env = \"SECRET\" }\n\
     token_url = \"http://127.0.0.1:9/token\"\n[[routes]]\nprefix = \"/test.Tokenless\"\n\
     upstream = \"http://127.0.0.1:9\"\ncredential = \"none\"";

/// Routes to this server, and those that can only fail.
fn front(ca: &Ca, upstream: &str, http: &str) -> Front {
    let service = format!("{upstream}/test.Service");
    let routes = [
        ("/test.Service", service.as_str(), http),
        ("/test.Denied", &service, "deny = [\"* /**\"]"),
        ("/test.Away", "http://127.0.0.1:9", TOKENLESS),
    ];
    Front::with(ca, Cupbearer::builder(), &routes, "ca.pem")
}

#[test]
#[ignore = "needs python3-grpcio: run tests/run"]
fn grpc_calls_of_every_kind_come_out_as_direct_ones_do() {
    let (ca, dir) = (Ca::new(), TestDir::new());
    let (certificate, key) = ca.issue(&["localhost"]);
    let pair = [dir.write("tls.crt", certificate), dir.write("tls.key", key)].map(|path| path.display().to_string());
    let plain = PythonServer::start("grpc/server.py", &[]);
    let tls = PythonServer::start("grpc/server.py", &[&pair[0], &pair[1]]);
    let prior = front(&ca, &format!("http://127.0.0.1:{}", plain.port()), "http = \"h2\"");
    let alpn = front(&ca, &format!("https://localhost:{}", tls.port()), "");
    for front in [prior, alpn] {
        call(&front, false);
        call(&front, true);
        front.end();
    }
}

//! `cupbearer reload`: asks the running instance to read its file again, at its admin address.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde_json::Value;

use super::{
    BAD_CONFIG, FileArgs, Global,
    output::{say, tell},
};

/// How long the instance may take; reading its file may run commands.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// The instance's admin address, where it is not the one in the file.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// Exit 0: applied; 2: rejected, the one before stays; 1: nobody could be asked.
pub(super) fn run(args: &ReloadArgs, global: &Global) -> ExitCode {
    let address = match address(args, global) {
        Ok(address) => address,
        Err(code) => return code,
    };
    let (status, answer) = match post(address) {
        Ok(answered) => answered,
        Err(error) => {
            tell(format_args!(
                "error: no cupbearer could be asked at {address}: {error}\nhint: is it running, with this admin address?"
            ));
            return ExitCode::FAILURE;
        }
    };
    match status {
        200 => {
            say(format_args!("configuration {} applied", answer["generation"]));
            for key in answer["restart_needed"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                tell(format_args!("warning: what has changed of {key} holds only after a restart"));
            }
            ExitCode::SUCCESS
        }
        422 => {
            tell(format_args!("{}\nerror: not applied; the configuration before stays", text(&answer["detail"])));
            ExitCode::from(BAD_CONFIG)
        }
        status => {
            tell(format_args!("error: {address} answered {status}: {}", text(&answer["detail"])));
            ExitCode::FAILURE
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("what answers there is no cupbearer")
}

/// Where to ask: as said, or as the file has it. An address of all interfaces is asked on loopback.
fn address(args: &ReloadArgs, global: &Global) -> Result<SocketAddr, ExitCode> {
    let admin = match args.admin {
        Some(admin) => Some(admin),
        // A file that is wrong would be rejected anyway; its problems are told here.
        None => in_file(global)?,
    };
    let refuse = |why: &str| {
        tell(format_args!("error: {why}\nhint: send SIGHUP to the process, or name its address with --admin"));
        Err(ExitCode::from(BAD_CONFIG))
    };
    match admin {
        None => refuse("the configuration has no admin address ([admin] listen = false)"),
        Some(address) if address.port() == 0 => refuse("the admin address in the configuration has port 0: any"),
        Some(address) if address.ip().is_unspecified() => {
            let loopback =
                if address.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
            Ok(SocketAddr::new(loopback, address.port()))
        }
        Some(address) => Ok(address),
    }
}

/// The address that the file has.
fn in_file(global: &Global) -> Result<Option<SocketAddr>, ExitCode> {
    let loaded = global.load().inspect_err(|_| {
        tell(
            "error: the running cupbearer was not asked and keeps its configuration\n\
             hint: its address stands in this file; --admin ADDRESS asks it all the same",
        );
    });
    Ok(loaded?.0.admin)
}

/// Status and body of the answer.
fn post(address: SocketAddr) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("POST /api/v1/reload HTTP/1.1\r\nHost: {address}\r\nX-Cupbearer: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(1024 * 1024).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("what answers there speaks no HTTP"))?;
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}

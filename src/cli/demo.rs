//! `cupbearer demo`: the sandbox and a proxy in front of it.

use std::{fmt::Write as _, io, net::SocketAddr, process::ExitCode};

use clap::Args;

use super::{
    Global,
    output::{say, tell},
    serve,
};
use crate::{
    config,
    control::{Proxy, StartError},
    sandbox::{EXAMPLES, Options, Sandbox},
    telemetry,
};

/// The command's own arguments.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The proxy's port on loopback; 0 = any free one.
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,
}

/// Shows everything until SIGTERM or SIGINT.
pub(super) fn run(args: &DemoArgs, global: &Global) -> ExitCode {
    let _log = telemetry::log::start(global.log_format().unwrap_or_default());
    let result = serve::block_on(demo(args.port)).and_then(|served| served);
    if let Err(StartError::Listen { source, .. }) = &result
        && source.kind() == io::ErrorKind::AddrInUse
    {
        let code = serve::finish(result);
        tell("hint: `cupbearer demo --port 0` takes any free port");
        return code;
    }
    serve::finish(result)
}

async fn demo(port: u16) -> Result<(), StartError> {
    let sandbox = Sandbox::start(Options::default()).await?;
    let text =
        sandbox.demo_config(SocketAddr::from(([127, 0, 0, 1], port)), Some(SocketAddr::from(([127, 0, 0, 1], 0))));
    let (config, _) = config::parse(&text, &|name| sandbox.demo_env(name))
        .map_err(|problems| StartError::Config(problems.to_string()))?;
    serve::serve(config, None, |proxy| say(introduction(&sandbox, proxy))).await
}

fn introduction(sandbox: &Sandbox, proxy: &Proxy) -> String {
    let base = proxy.addresses().first().cloned().unwrap_or_default();
    let mut text = format!(
        "\ncupbearer at {base} in front of its sandbox at {}: no account, nothing leaves this machine.\n\
         The requests carry no token; cupbearer gets one and adds it. Try, in another terminal:\n",
        sandbox.base_url()
    );
    for example in &EXAMPLES {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n# {}\n{}\n", example.title, example.command(&base));
    }
    let _ = write!(
        text,
        "\nHow many tokens that took:\ncurl -s {0}/_sandbox/log\n\
         A provider that is down (what has a token goes on), and well again:\ncurl -s -d ipxo.idp=down {0}/_sandbox/fault\ncurl -s -X DELETE {0}/_sandbox/fault\n\n\
         Ctrl-C ends it.",
        sandbox.base_url()
    );
    text
}

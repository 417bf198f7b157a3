//! cupbearer's own sandbox inside the test process, so that a test can order faults and read what came in.

use std::{ops::Deref, sync::mpsc, thread};

use cupbearer::sandbox::{Log, Options, Provider, Sandbox};
use tokio::sync::oneshot;

use super::eventually;

/// A sandbox on a thread of its own; ends when dropped.
pub(crate) struct Playground {
    sandbox: Option<Sandbox>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Deref for Playground {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        self.sandbox.as_ref().expect("only drop takes it")
    }
}

impl Playground {
    /// One as `cupbearer sandbox --port 0` is.
    pub(crate) fn new() -> Self {
        Self::start(Options::default())
    }

    /// One with these faults from the start.
    pub(crate) fn with(faults: &[&str]) -> Self {
        let options = faults.iter().try_fold(Options::default(), |options, fault| options.fault(fault));
        Self::start(options.unwrap_or_else(|e| panic!("{e}")))
    }

    /// One with these options.
    pub(crate) fn start(options: Options) -> Self {
        let (started, wait) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                started.send(Sandbox::start(options).await).expect("the test waits");
                let _ = stopped.await;
            });
        });
        let sandbox = wait.recv().expect("it starts or says why not").unwrap_or_else(|e| panic!("{e}"));
        Self { sandbox: Some(sandbox), stop: Some(stop), thread: Some(thread) }
    }

    /// Orders a fault.
    pub(crate) fn order(&self, fault: &str) {
        self.fault(fault).unwrap_or_else(|e| panic!("{e}"));
    }

    /// A `[credentials.NAME]` with the provider's built-in profile; `more` are further lines.
    pub(crate) fn credential(&self, name: &str, provider: Provider, id: &str, secret: &str, more: &str) -> String {
        let profile = match provider {
            Provider::MythicBeasts => "mythic-beasts",
            other => other.name(),
        };
        let token_url = self.token_url(provider);
        format!(
            "[credentials.{name}]\nprovider = \"{profile}\"\nclient_id = \"{id}\"\nclient_secret = {secret}\n\
             token_url = \"{token_url}\"\n{more}\n\n"
        )
    }

    /// A `[[routes]]` to the path `upstream` of this sandbox; `more` are further lines.
    pub(crate) fn route(&self, prefix: &str, upstream: &str, credential: &str, more: &str) -> String {
        let base = self.base_url();
        format!(
            "[[routes]]\nprefix = \"{prefix}\"\nupstream = \"{base}{upstream}\"\ncredential = \"{credential}\"\n{more}\n\n"
        )
    }

    /// Requests to the provider's token endpoint so far.
    pub(crate) fn token_requests(&self, provider: Provider) -> u64 {
        self.log().providers.get(&provider).map_or(0, |seen| seen.token_requests)
    }

    /// Tokens that the provider has given out so far.
    pub(crate) fn tokens_issued(&self, provider: Provider) -> u64 {
        self.log().providers.get(&provider).map_or(0, |seen| seen.tokens_issued)
    }

    /// Waits until the provider's token endpoint has seen so many requests.
    pub(crate) fn wait_for_token_requests(&self, provider: Provider, count: u64) {
        eventually(&format!("{count} token requests"), || self.token_requests(provider) >= count);
    }

    /// Panics if anything came in that a strict server refuses, or any token where it does not belong;
    /// gives back the log.
    pub(crate) fn expect_clean(&self) -> Log {
        let log = self.log();
        assert!(log.strict_refusals.is_empty(), "{:?}", log.strict_refusals);
        assert_eq!((log.redirects_followed, log.redirected_authorizations, log.uncounted), (0, 0, 0));
        for (provider, seen) in &log.providers {
            assert_eq!(seen.without_token, 0, "{provider:?} without a token: {seen:?}");
            assert_eq!(seen.stale_tokens, 0, "{provider:?} with a stale token: {seen:?}");
            assert_eq!(seen.unknown_tokens, 0, "{provider:?} with an unknown token: {seen:?}");
            assert_eq!(seen.foreign_tokens, 0, "{provider:?} with a foreign token: {seen:?}");
            assert_eq!(seen.wrong_grants, 0, "{provider:?} with a token for something else: {seen:?}");
        }
        assert!(log.request_ids.values().all(|&times| times == 1), "a request came twice: {:?}", log.request_ids);
        log
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        self.sandbox = None;
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

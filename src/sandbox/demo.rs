//! A cupbearer in front of a sandbox: its configuration, its secrets, and what to try.

use std::{fmt::Write as _, net::SocketAddr};

use super::{
    options::{
        DIGITAL_REALTY_CLIENT_ID, IPXO_CLIENT_ID, IPXO_OTHER_CLIENT_ID, IX_API_KEY, MYTHIC_KEY_ID, PAX8_CLIENT_ID,
    },
    provider::Provider,
    server::Sandbox,
};

/// A credential of the demo: its name, the profile's, the client, and the variable its secret comes from.
struct Credential {
    name: &'static str,
    profile: &'static str,
    provider: Provider,
    client_id: &'static str,
    variable: &'static str,
}

const fn credential(
    name: &'static str,
    profile: &'static str,
    provider: Provider,
    client_id: &'static str,
    variable: &'static str,
) -> Credential {
    Credential { name, profile, provider, client_id, variable }
}

const CREDENTIALS: [Credential; 7] = [
    credential("ipxo", "ipxo", Provider::Ipxo, IPXO_CLIENT_ID, "CUPBEARER_DEMO_IPXO_SECRET"),
    credential("ipxo-globex", "ipxo", Provider::Ipxo, IPXO_OTHER_CLIENT_ID, "CUPBEARER_DEMO_IPXO_GLOBEX_SECRET"),
    credential(
        "digital-realty",
        "digital-realty",
        Provider::DigitalRealty,
        DIGITAL_REALTY_CLIENT_ID,
        "CUPBEARER_DEMO_DIGITAL_REALTY_SECRET",
    ),
    credential("ix-api", "ix-api", Provider::IxApi, IX_API_KEY, "CUPBEARER_DEMO_IX_API_SECRET"),
    credential("pax8", "pax8", Provider::Pax8, PAX8_CLIENT_ID, "CUPBEARER_DEMO_PAX8_SECRET"),
    credential("mythic", "mythic-beasts", Provider::MythicBeasts, MYTHIC_KEY_ID, "CUPBEARER_DEMO_MYTHIC_SECRET"),
    credential("wrong", "ipxo", Provider::Ipxo, IPXO_CLIENT_ID, WRONG),
];

/// The variable that holds a wrong secret.
const WRONG: &str = "CUPBEARER_DEMO_WRONG_SECRET";

/// Prefix, credential, API of the profile (empty: none), upstream path in the sandbox.
const ROUTES: [(&str, &str, &str, &str); 15] = [
    ("/ipxo/billing", "ipxo", "billing", "/ipxo/billing"),
    ("/ipxo/ecommerce", "ipxo", "ecommerce", "/ipxo/ecommerce"),
    ("/ipxo/nethub-data", "ipxo", "nethub-data", "/ipxo/nethub-data"),
    ("/globex/billing", "ipxo-globex", "billing", "/ipxo/billing"),
    ("/digital-realty", "digital-realty", "ix-api", "/digital-realty/ixapi/v2"),
    ("/ix-api", "ix-api", "", "/ix-api/api/v2"),
    ("/pax8/v1", "pax8", "v1", "/pax8/v1"),
    ("/pax8/v2", "pax8", "quotes", "/pax8/v2"),
    ("/pax8/v2/provision-requests", "pax8", "provisioning", "/pax8/v2/provision-requests"),
    ("/pax8/usage", "pax8", "usage", "/pax8/v2/usage"),
    ("/pax8/webhooks", "pax8", "webhooks", "/pax8/api/v2/webhooks"),
    ("/mythic/dns", "mythic", "dns", "/mythic/dns/v2"),
    ("/mythic/beta", "mythic", "beta", "/mythic/beta"),
    ("/mythic/queue", "mythic", "queue", "/mythic/queue"),
    ("/wrong-secret", "wrong", "billing", "/ipxo/billing"),
];

/// Something to try against the demo.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// What it shows.
    pub title: &'static str,
    /// Path and query at the proxy.
    pub path: &'static str,
    /// Arguments of curl before the URL, as one writes them in a shell.
    pub arguments: &'static str,
    /// The status that comes back.
    pub status: u16,
}

impl Example {
    /// The whole line for a shell. `proxy`: `http://127.0.0.1:8080`.
    pub fn command(&self, proxy: &str) -> String {
        let Self { path, arguments, .. } = self;
        let quote = if path.contains(['?', '&', '[', '*']) { "'" } else { "" };
        format!("curl {arguments} {quote}{proxy}{path}{quote}")
    }
}

/// What to try, in the order of the story.
pub const EXAMPLES: [Example; 14] = [
    example("IPXO: invoices, with a token for the scope \"billing\"", "-s", "/ipxo/billing/v1/acme/invoices", 200),
    example("IPXO: another company has another key", "-s", "/globex/billing/v1/globex/invoices", 200),
    example(
        "IPXO: a body on DELETE",
        "-s -X DELETE -H 'Content-Type: application/json' -d '{\"amount\":42}'",
        "/ipxo/ecommerce/public/acme/cart/c1/credits",
        200,
    ),
    example(
        "IPXO: an invoice as PDF, streamed",
        "-s -o /dev/null -w '%{http_code} %{content_type} %{size_download} bytes\\n'",
        "/ipxo/billing/v1/acme/invoices/INV-2024-0001/download?size=1000000",
        200,
    ),
    example("Digital Realty: cloud access ports", "-s", "/digital-realty/connections", 200),
    example("IX-API: key and secret as JSON, the lifetime in the JWT", "-s", "/ix-api/accounts", 200),
    example("Pax8: companies, with the audience https://api.pax8.com", "-s", "/pax8/v1/companies", 200),
    example("Pax8: the same host, but the audience api://provisioning", "-s", "/pax8/v2/provision-requests", 200),
    example(
        "Mythic Beasts: DNS records, with valueless query keys",
        "-s",
        "/mythic/dns/zones/example.com/records?exclude-template&exclude-generated",
        200,
    ),
    example(
        "Mythic Beasts: a new server answers 202 with a Location behind the proxy, to poll",
        "-si -X POST -d '{\"product\":\"VPSX4\"}' -H 'Content-Type: application/json'",
        "/mythic/beta/vps/servers/web1",
        202,
    ),
    example(
        "What the API received: the token is only a fingerprint",
        "-sg",
        "/ipxo/billing/echo?filter[status]=paid",
        200,
    ),
    example("Honest error: the provider refuses our secret", "-si", "/wrong-secret/v1", 502),
    example("Honest error: no such route", "-si", "/nowhere", 404),
    example("Guarded: a provider's token endpoint is never reachable", "-si -X POST", "/pax8/v1/token", 403),
];

const fn example(title: &'static str, arguments: &'static str, path: &'static str, status: u16) -> Example {
    Example { title, path, arguments, status }
}

impl Sandbox {
    /// The text of a `proxy.toml` for a cupbearer in front of this sandbox, all five providers through
    /// their built-in profiles. Its secrets are environment variables: [`Sandbox::demo_env`].
    pub fn demo_config(&self, listen: SocketAddr, admin: Option<SocketAddr>) -> String {
        let mut text = format!("# cupbearer in front of its sandbox at {}\n\n[server]\n", self.base_url());
        let _ = writeln!(text, "listen = \"{listen}\"\n\n[admin]");
        let _ = match admin {
            Some(admin) => writeln!(text, "listen = \"{admin}\""),
            None => writeln!(text, "listen = false"),
        };
        for Credential { name, profile, provider, client_id, variable } in &CREDENTIALS {
            let token_url = self.token_url(*provider);
            let _ = write!(
                text,
                "\n[credentials.{name}]\nprovider = \"{profile}\"\nclient_id = \"{client_id}\"\n\
                 client_secret = {{ env = \"{variable}\" }}\ntoken_url = \"{token_url}\"\n"
            );
        }
        for (prefix, credential, api, upstream) in ROUTES {
            let api = if api.is_empty() { String::new() } else { format!("api = \"{api}\"\n") };
            let base = self.base_url();
            let _ = write!(
                text,
                "\n[[routes]]\nprefix = \"{prefix}\"\n{api}upstream = \"{base}{upstream}\"\ncredential = \"{credential}\"\n"
            );
        }
        text
    }

    /// The environment that [`Sandbox::demo_config`] speaks of: the secrets of its clients.
    pub fn demo_env(&self, variable: &str) -> Option<String> {
        if variable == WRONG {
            return Some("not-the-secret".to_owned());
        }
        let credential = CREDENTIALS.iter().find(|c| c.variable == variable)?;
        self.secret(credential.provider, credential.client_id).map(str::to_owned)
    }

    /// Names of the variables that [`Sandbox::demo_env`] knows.
    pub fn demo_variables() -> impl Iterator<Item = &'static str> {
        CREDENTIALS.iter().map(|c| c.variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Options;

    #[tokio::test]
    async fn the_demo_is_a_configuration_without_a_warning() {
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let text = sandbox.demo_config(([127, 0, 0, 1], 8080).into(), None);
        let parsed = crate::config::parse(&text, &|name| sandbox.demo_env(name));
        let (config, warnings) = parsed.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!((config.routes.len(), config.credentials.len()), (ROUTES.len(), CREDENTIALS.len()));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[tokio::test]
    async fn the_configuration_and_its_variables_hold_no_secret_but_through_the_environment() {
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let text = sandbox.demo_config(([127, 0, 0, 1], 8080).into(), None);
        for variable in Sandbox::demo_variables() {
            let secret = sandbox.demo_env(variable).unwrap();
            assert!(secret.starts_with("not-") && !text.contains(&secret));
        }
        assert_eq!(sandbox.demo_env("HOME"), None);
    }

    #[test]
    fn each_example_is_one_line_for_a_shell_and_leads_to_a_route() {
        for example in &EXAMPLES {
            let line = example.command("http://127.0.0.1:8080");
            assert!(line.starts_with("curl -s") && !line.contains('\n'), "{line}");
            // curl takes brackets for a range of URLs unless -g says otherwise.
            assert!(!line.contains('[') || line.starts_with("curl -sg "), "{line}");
            let routed = ROUTES.iter().any(|(prefix, ..)| example.path.starts_with(prefix));
            assert_eq!(routed, example.status != 404, "{line}");
        }
    }
}

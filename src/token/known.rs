//! 2 … refusals that are known: what a provider's code or words really mean, and what to do. Pure, a table.
//!
//! A row is found by the provider's words and tells our own, so that nothing of the provider's is shown by it. Rows of
//! one provider stand before those that hold for anybody; the first that fits wins.

use crate::config::model::CredentialSpec;

/// A refusal that is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// Whose: a profile's name or a domain that the token endpoint is in. Empty = anybody's.
    whose: &'static [&'static str],
    /// The status that it comes with; 0 = any.
    status: u16,
    /// All of these stand in the answer's body, in any case. A text that ends in a digit is not followed by one.
    says: &'static [&'static str],
    /// What it means: a sentence.
    pub means: &'static str,
    /// What to do about it: a sentence.
    pub advice: &'static str,
}

/// The row for what the provider of `credential` answered.
pub fn find(credential: &CredentialSpec, status: u16, body: &[u8]) -> Option<&'static Known> {
    let body = String::from_utf8_lossy(&body[..body.len().min(READ)]).to_lowercase();
    TABLE.iter().find(|row| row.fits(credential, status, &body))
}

/// No error is longer; of a page nothing is known.
const READ: usize = 16 * 1024;

impl Known {
    fn fits(&self, credential: &CredentialSpec, status: u16, body: &str) -> bool {
        (self.status == 0 || self.status == status)
            && (self.whose.is_empty() || self.whose.iter().any(|whose| is_of(credential, whose)))
            && self.says.iter().all(|words| holds(body, words))
    }
}

/// Whether the credential's provider is `whose`, by profile or by the host of its token endpoint.
fn is_of(credential: &CredentialSpec, whose: &str) -> bool {
    let host = &credential.token_url.host;
    credential.provider.as_deref() == Some(whose)
        || host.strip_suffix(whose).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn holds(body: &str, words: &str) -> bool {
    let words = words.to_lowercase();
    let numbered = words.ends_with(|c: char| c.is_ascii_digit());
    body.match_indices(&words).any(|(at, found)| {
        let next = body[at + found.len()..].chars().next();
        !(numbered && next.is_some_and(|c| c.is_ascii_digit()))
    })
}

const ANY: &[&str] = &[];
const PAX8: &[&str] = &["pax8", "pax8.com"];
const IX_API: &[&str] = &["ix-api", "de-cix.net"];
const OKTA: &[&str] = &["okta", "okta.com", "oktapreview.com", "okta-emea.com"];
const GOOGLE: &[&str] = &["google", "googleapis.com", "accounts.google.com"];
const X: &[&str] = &["x", "x.com", "twitter.com"];
const SOUNDCLOUD: &[&str] = &["soundcloud", "soundcloud.com"];
const EQUINIX: &[&str] = &["equinix", "equinix.com"];
const SALESFORCE: &[&str] = &["salesforce", "salesforce.com"];
const GITHUB: &[&str] = &["github-app", "github.com"];
const ZOOM: &[&str] = &["zoom", "zoom.us"];

const fn row(
    whose: &'static [&'static str],
    status: u16,
    says: &'static [&'static str],
    means: &'static str,
    advice: &'static str,
) -> Known {
    Known { whose, status, says, means, advice }
}

/// Read from the providers' documentation, and from what people reported to the projects concerned.
#[rustfmt::skip] // a row is what it says, what that means, what to do
static TABLE: &[Known] = &[
    // Microsoft Entra ID
    row(ANY, 0, &["AADSTS7000215"], "The client secret is wrong.",
        "Take the secret's Value, not its Secret ID, from the app registration."),
    row(ANY, 0, &["AADSTS7000222"], "The client secret has expired.",
        "Make a new one in the app registration; client_secret may be a list while both are about."),
    row(ANY, 0, &["AADSTS700016"], "The tenant knows no application of this client_id.",
        "Check client_id, and the tenant in token_url."),
    row(ANY, 0, &["AADSTS7000229"], "The application has no service principal in this tenant.",
        "Have an administrator of the tenant consent to the application, or check the tenant in token_url."),
    row(ANY, 0, &["AADSTS7000112"], "The application is disabled.",
        "Enable it in the tenant's enterprise applications."),
    row(ANY, 0, &["AADSTS7000218"], "The client sent neither a secret nor an assertion, and must.",
        "Set client_auth to \"post\" or \"private_key_jwt\"."),
    row(ANY, 0, &["AADSTS90002"], "There is no such tenant.",
        "Check the tenant in token_url, and that it is in this cloud (.com, .us, .cn)."),
    row(ANY, 0, &["AADSTS900023"], "The tenant in token_url is neither a domain nor an id.",
        "Write the tenant's id (a UUID) or one of its domains into token_url."),
    row(ANY, 0, &["AADSTS50034"], "The tenant has no user of this name.",
        "Check username, and the tenant in token_url."),
    row(ANY, 0, &["AADSTS50126"], "User name or password are wrong.",
        "Check username and password; a federated account cannot use this grant."),
    row(ANY, 0, &["AADSTS50076"], "The user must pass a second factor, which this grant cannot.",
        "Use a service principal (grant = \"client_credentials\"), or login."),
    row(ANY, 0, &["AADSTS50079"], "The user must enrol a second factor, which this grant cannot.",
        "Use a service principal (grant = \"client_credentials\"), or login."),
    row(ANY, 0, &["AADSTS53003"], "A conditional access policy of the tenant denies it.",
        "Ask the tenant's administrator; sign-in logs name the policy."),
    row(ANY, 0, &["AADSTS65001"], "Nobody has consented to the application's use of this API.",
        "Have an administrator grant consent for its permissions."),
    row(ANY, 0, &["AADSTS70011"], "The scope is none of this API's.",
        "With client_credentials the only scope is the API's own: scopes = [\"https://graph.microsoft.com/.default\"]."),
    row(ANY, 0, &["AADSTS1002012"], "The scope is none that client_credentials may ask for.",
        "Ask for the API's own scope: scopes = [\"https://graph.microsoft.com/.default\"]."),
    row(ANY, 0, &["AADSTS500011"], "The tenant knows no such API.",
        "Check the part of scopes (or resource) before /.default: it is the API's Application ID URI."),
    row(ANY, 0, &["AADSTS700027"], "The assertion's signature does not match the application's certificate.",
        "Upload the certificate of `key` to the app registration, and give it as key_cert: the assertion then names its thumbprint."),
    row(ANY, 0, &["AADSTS700024"], "The assertion is not within its time.",
        "Set this host's clock (NTP)."),
    row(ANY, 0, &["AADSTS700021"], "The assertion was made for another client.",
        "Check client_id, and iss and sub of assertion."),
    row(ANY, 0, &["AADSTS700213"], "No federated credential of the application fits the assertion's subject.",
        "Compare sub and iss of the assertion with the application's federated credentials; case counts."),
    row(ANY, 0, &["AADSTS700211"], "No federated credential of the application fits the assertion's issuer.",
        "Compare iss of the assertion with the application's federated credentials."),
    row(ANY, 0, &["AADSTS900144", "'scope'"], "The parameter scope is missing.",
        "Set scopes: with client_credentials the API's own, [\"https://graph.microsoft.com/.default\"]."),
    row(ANY, 0, &["AADSTS900144", "'resource'"], "The parameter resource is missing: this is the v1 endpoint.",
        "Set resource to the API, or use the v2.0 endpoint and scopes."),
    row(ANY, 0, &["AADSTS900144", "'grant_type'"], "Entra has read none of the parameters.",
        "Set body to \"form\": Entra reads no JSON."),
    row(ANY, 0, &["AADSTS900144"], "A parameter is missing from the request.",
        "Set the one that its words name: a key of this name, or params."),
    row(ANY, 0, &["AADSTS700082"], "The refresh token has expired because it was not used.",
        "Log in again."),
    row(ANY, 0, &["AADSTS70008"], "The refresh token has expired or was revoked.",
        "Log in again."),

    // Ory Hydra (IPXO and others): a client is registered for one method
    row(ANY, 0, &["supports client authentication method 'client_secret_post'"],
        "This client is registered for client_secret_post.", "Set client_auth to \"post\"."),
    row(ANY, 0, &["supports client authentication method 'client_secret_basic'"],
        "This client is registered for client_secret_basic.", "Set client_auth to \"basic\"."),
    row(ANY, 0, &["supports client authentication method 'private_key_jwt'"],
        "This client is registered for private_key_jwt.", "Set client_auth to \"private_key_jwt\", and key."),
    row(ANY, 0, &["supports client authentication method 'none'"],
        "This client is registered as public, without a secret.", "Set client_auth to \"none\"."),
    row(ANY, 0, &["OAuth 2.0 Client is not allowed to request scope"],
        "A scope is not granted to this client.", "Compare scopes with the client's registration; one unknown scope spoils all."),
    row(ANY, 0, &["has not been whitelisted by the OAuth 2.0 Client"],
        "The audience is not granted to this client.", "Check audience against the client's registration."),
    row(ANY, 0, &["is not allowed to use authorization grant"],
        "This client may not use this grant.", "Have the grant added to the client's registration."),

    // Pax8 and others on Auth0
    row(PAX8, 0, &["access_denied"], "Pax8 takes neither the client nor the audience.",
        "Check client_id, client_secret and audience; Pax8 says access_denied where others say invalid_client."),
    row(ANY, 0, &["Service not enabled within domain"], "The tenant has no API of this audience.",
        "Check audience: it is the API's Identifier, to the letter, also its last slash."),
    row(ANY, 0, &["Client is not authorized to access"], "The application is not authorized for this API.",
        "Authorize it for the API (a client grant), or check audience."),
    row(ANY, 0, &["Grant type 'client_credentials' not allowed for the client"],
        "The application may not use client_credentials.", "Enable the grant in its advanced settings."),

    // IX-API
    row(IX_API, 0, &["authentication-error"], "The exchange takes neither key nor secret.",
        "Check client_id (api_key) and client_secret (api_secret)."),
    row(IX_API, 0, &["signature-expired"], "The refresh token has expired.",
        "Nothing: a new login follows by itself."),

    // Okta
    row(OKTA, 0, &["must use the private_key_jwt"], "Okta's own authorization server takes client_credentials with a key only.",
        "Set client_auth to \"private_key_jwt\", or use a custom authorization server (/oauth2/default/v1/token)."),
    row(ANY, 0, &["Invalid value for 'client_id' parameter"], "The server knows no such client.",
        "Check client_id, and that token_url is of the same organisation."),
    row(ANY, 0, &["client secret supplied for a confidential client is invalid"], "The client secret is wrong.",
        "Check client_secret."),
    row(OKTA, 0, &["No client credentials found"], "The server found no client authentication where it looks for it.",
        "Set client_auth to the method that the application is set up for."),
    row(OKTA, 0, &["Either the client or the client credentials are invalid"], "Client, secret or method are wrong.",
        "Check client_id, client_secret and client_auth; \"basic\" is Okta's default."),
    row(OKTA, 0, &["one or more scopes are not configured"], "A scope is not granted to this application.",
        "Grant it in the application's API scopes, or define it on the authorization server."),
    row(OKTA, 0, &["Policy evaluation failed"], "No access policy of the authorization server covers this client.",
        "Add a policy and a rule for client_credentials that name the application."),
    row(ANY, 0, &["DPoP proof JWT header is missing"], "The application demands DPoP.",
        "Set dpop = true, or switch \"Require DPoP\" off."),

    // Keycloak
    row(ANY, 0, &["Client not enabled to retrieve service account"], "The client has no service account.",
        "Switch \"Service accounts roles\" on in the client's settings (Keycloak)."),
    row(ANY, 0, &["Client not allowed for direct access grants"], "The client may not use the password grant.",
        "Switch \"Direct access grants\" on in the client's settings (Keycloak)."),
    row(ANY, 0, &["Invalid client or Invalid client credentials"], "Id or secret are wrong.",
        "Check client_id and client_secret, and the realm in token_url (Keycloak)."),
    row(ANY, 0, &["Invalid user credentials"], "User name or password are wrong.", "Check username and password."),
    row(ANY, 0, &["Realm does not exist"], "There is no such realm.",
        "Check the realm in token_url: /realms/REALM/protocol/openid-connect/token."),
    row(ANY, 0, &["Maximum allowed refresh token reuse exceeded"], "The refresh token was used before, by somebody else or by a copy.",
        "Log in again; let one instance use it, or several share a store."),
    row(ANY, 0, &["Offline session not active"], "The login that the refresh token came from has ended.", "Log in again."),
    row(ANY, 0, &["Session not active"], "The login that the refresh token came from has ended.",
        "Log in again, with the scope offline_access."),

    // Google
    row(ANY, 0, &["Invalid JWT Signature"], "The key is not, or no longer, one of this service account's.",
        "Check that `key` and iss come from one key file, and that the key was not deleted."),
    row(ANY, 0, &["Token must be a short-lived token"], "The assertion's times make no sense to the server.",
        "Set this host's clock (NTP)."),
    row(ANY, 0, &["account not found"], "There is no such service account or user.",
        "Check iss (the service account's address) and sub of assertion."),
    row(ANY, 0, &["Client is unauthorized to retrieve access tokens using this method"],
        "The service account may not act for this user with these scopes.",
        "Add client id and scopes to the domain-wide delegation, or leave sub out of assertion."),
    row(ANY, 0, &["Invalid OAuth scope or ID token audience"], "There are no scopes, or one does not exist.",
        "Check scopes: they are whole URLs, https://www.googleapis.com/auth/…"),
    row(ANY, 0, &["Token has been expired or revoked"], "The refresh token is no good any more.",
        "Log in again; while Google's consent screen is in testing, refresh tokens end after 7 days."),
    row(GOOGLE, 0, &["invalid_rapt"], "The organisation demands that the user logs in again.",
        "Log in again, or use a service account (grant = \"jwt_bearer\")."),

    // Others
    row(X, 403, &["99"], "Key or secret are wrong, or the token was asked for too often (code 99).",
        "Check client_id and client_secret, and wait; tokens.store = { file = … } spares requests at restarts."),
    row(SOUNDCLOUD, 429, &[], "The quota of tokens is spent: SoundCloud gives 50 in 12 hours.",
        "Set budget = \"50/12h\", and a tokens.store that outlives restarts."),
    row(EQUINIX, 0, &["S1006"], "Key or secret are wrong.",
        "Check them before the next try: five wrong ones in a row lock the account."),
    row(SALESFORCE, 0, &["request not supported on this domain"], "This host gives no tokens for this grant.",
        "Use your own domain: https://NAME.my.salesforce.com/services/oauth2/token."),
    row(SALESFORCE, 0, &["no client credentials user enabled"], "The connected app has no user to act as.",
        "Set a \"Run As\" user for its client credentials flow."),
    row(GITHUB, 0, &["incorrect_client_credentials"], "Id or secret are wrong.", "Check client_id and client_secret."),
    row(GITHUB, 0, &["could not be decoded"], "The app's JWT is not signed by one of its keys.",
        "Check `key`, and that iss is the app's id."),
    row(ZOOM, 0, &["unsupported grant type"], "Zoom calls its grant by another name.",
        "Set grant_type to \"account_credentials\", and params = { account_id = \"…\" }."),
    row(ANY, 0, &["client authentication must only be provided using one mechanism"],
        "The client authenticated in two ways at once.", "Leave id and secret out of params and headers; client_auth sends them."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_something_to_be_found_by_and_says_it_in_sentences() {
        for row in TABLE {
            assert!(!row.says.is_empty() || row.status != 0 && !row.whose.is_empty(), "{row:?}");
            for sentence in [row.means, row.advice] {
                let begins = sentence.starts_with(|c: char| c.is_ascii_uppercase());
                assert!(begins && sentence.ends_with(['.', '…']), "{sentence}");
            }
        }
    }

    #[test]
    fn a_number_is_not_taken_for_the_beginning_of_a_longer_one() {
        assert!(holds("aadsts700016: application", "AADSTS700016"));
        assert!(!holds("aadsts7000161", "AADSTS700016"));
        assert!(holds("aadsts7000161 aadsts700016.", "AADSTS700016"));
    }

    #[test]
    fn no_row_hides_another() {
        for (position, row) in TABLE.iter().enumerate() {
            for later in &TABLE[position + 1..] {
                let wider = row.whose.is_empty() || row.whose == later.whose;
                let same = row.status == 0 || row.status == later.status;
                let covers = row.says.iter().all(|words| later.says.iter().any(|w| holds(&w.to_lowercase(), words)));
                assert!(!(wider && same && covers), "{row:?} hides {later:?}");
            }
        }
    }
}

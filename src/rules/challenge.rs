//! What a 401 says: `WWW-Authenticate` (RFC 9110 section 11.6.1, RFC 6750 section 3).

/// Whether an answer's challenges mean that the token itself was no good: `invalid_token`, or nothing
/// about an error at all. `insufficient_scope` and `invalid_request` mean something that no new token
/// would mend.
pub fn blames_token<'a>(challenges: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut verdict = true;
    for value in challenges {
        for error in bearer_errors(value) {
            if error.eq_ignore_ascii_case(b"invalid_token") {
                return true;
            }
            verdict = false;
        }
    }
    verdict
}

/// Whether they mean that the proof which went with a bound token was no good, or has no nonce or an old one (RFC 9449 sections
/// 7.1 and 9).
pub fn blames_proof<'a>(challenges: impl Iterator<Item = &'a [u8]>) -> bool {
    let of_proof = |error: &[u8]| [b"use_dpop_nonce".as_slice(), b"invalid_dpop_proof"].contains(&error);
    challenges.into_iter().any(|value| bearer_errors(value).into_iter().any(of_proof))
}

/// The values of all `error` parameters in one field value. Commas separate both challenges and
/// parameters, so what matters is found by tokens: `NAME [BWS] = [BWS] (token | quoted-string)`; a token68
/// (`Negotiate YWJj==`) has no value after its `=` signs and is passed over.
fn bearer_errors(value: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut scheme_is_bearer_like = true;
    for part in split_outside_quotes(value) {
        let mut part = part.trim_ascii();
        let first = part.split(|b| matches!(b, b' ' | b'\t' | b'=')).next().unwrap_or_default();
        let after = part[first.len()..].trim_ascii_start();
        if !after.starts_with(b"=") || after.starts_with(b"==") {
            // A scheme stands in front: `Bearer realm="x"`; DPoP uses the same error codes (RFC 9449).
            scheme_is_bearer_like = first.eq_ignore_ascii_case(b"bearer") || first.eq_ignore_ascii_case(b"dpop");
            part = after;
        }
        let Some(equals) = part.iter().position(|&b| b == b'=') else { continue };
        let (name, value) = (part[..equals].trim_ascii(), part[equals + 1..].trim_ascii());
        if scheme_is_bearer_like && name.eq_ignore_ascii_case(b"error") {
            let quoted = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
            found.push(quoted.unwrap_or(value));
        }
    }
    found
}

fn split_outside_quotes(value: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, &byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                parts.push(&value[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&value[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blames(lines: &[&str]) -> bool {
        blames_token(lines.iter().map(|l| l.as_bytes()))
    }

    #[test]
    fn invalid_token_and_silence_blame_the_token() {
        assert!(blames(&[]));
        assert!(blames(&["Bearer"]));
        assert!(blames(&[r#"Bearer realm="api""#]));
        assert!(blames(&[r#"Bearer error="invalid_token", error_description="expired, sorry""#]));
        assert!(blames(&["Bearer realm=x, error=invalid_token"]));
        assert!(blames(&["Negotiate YWJjZA==, Bearer error = \"invalid_token\""]));
        assert!(blames(&["Basic realm=\"x\"", "bearer ERROR=\"Invalid_Token\""]));
        assert!(blames(&[r#"Bearer error_description="error=\"insufficient_scope\"", error="invalid_token""#]));
    }

    #[test]
    fn other_errors_do_not() {
        assert!(!blames(&[r#"Bearer error="insufficient_scope", scope="a b""#]));
        assert!(!blames(&[r#"Basic realm="a", Bearer realm="b", error="invalid_request""#]));
    }

    #[test]
    fn a_proof_that_was_no_good_is_not_the_tokens_fault() {
        let of_proof = |line: &str| blames_proof(std::iter::once(line.as_bytes()));
        for line in [r#"DPoP error="use_dpop_nonce", error_description="x""#, "Bearer, DPoP error=invalid_dpop_proof"] {
            assert!(of_proof(line) && !blames(&[line]), "{line}");
        }
        assert!(!of_proof(r#"DPoP error="invalid_token", algs="ES256""#));
        assert!(!of_proof(r#"DPoP algs="use_dpop_nonce""#));
    }

    #[test]
    fn text_inside_quotes_is_no_parameter() {
        assert!(blames(&[r#"Bearer realm="x, error=insufficient_scope""#]));
        assert!(blames(&[r#"Digest error="insufficient_scope""#]), "another scheme's parameter");
    }
}

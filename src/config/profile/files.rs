//! The profiles' texts, compiled in.

/// A file of `profiles/` is known by its name.
macro_rules! files {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../../../profiles/", $name, ".toml")))),*] };
}

/// All of them; `cupbearer providers` lists them by group, and in this order within each.
pub(super) const FILES: &[(&str, &str)] = files!(
    "ipxo" "digital-realty" "ix-api" "pax8" "mythic-beasts"
    "twitch" "zoom" "microsoft-entra" "shopify" "toast"
);

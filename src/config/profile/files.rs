//! The profiles' texts, compiled in.

/// A file of `profiles/` is known by its name.
macro_rules! files {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../../../profiles/", $name, ".toml")))),*] };
}

/// All of them; `cupbearer providers` lists them by group, and in this order within each.
pub(super) const FILES: &[(&str, &str)] = files!(
    "ipxo" "digital-realty" "ix-api" "pax8" "mythic-beasts"
    "twitch" "zoom" "microsoft-entra" "shopify" "toast"
    "paypal" "ebay" "spotify" "salesforce" "salesforce-marketing-cloud" "microsoft-entra-v1" "auth0" "adobe" "fedex" "ups" "dhl-ecommerce" "amadeus" "sabre" "equinix" "xero"
    "marketo" "databricks" "x" "soundcloud" "crowdstrike" "personio" "zoominfo" "tailscale" "sap-ariba" "workday"
    "greenhouse" "kno-commerce" "leapsome" "jobdiva" "jamf" "n-able" "tableau" "odoo" "fiserv" "oracle-ofsll"
    "okta" "google" "github-app" "netsuite" "snowflake"
);

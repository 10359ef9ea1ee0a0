//! Values that an administrator gave, by an option or a variable: each error names it.

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;

use crate::addr::{Family, parse_net};
use crate::printable::quoted;
use crate::routing_tables;

/// A value by its own type; `what` names it.
pub(super) fn parsed<T: std::str::FromStr<Err: Into<anyhow::Error>>>(what: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| error.into().context(format!("node: {what}: {}", quoted(text))))
}

/// A routing table by name or number.
pub(super) fn table(what: &str, text: &str) -> Result<u32> {
    routing_tables::resolve(text).with_context(|| format!("node: {what}: {}", quoted(text)))
}

/// ifupdown's word for a family.
pub(super) fn family(what: &str, text: &str) -> Result<Family> {
    match text {
        "inet" => Ok(Family::V4),
        "inet6" => Ok(Family::V6),
        _ => bail!("node: {what}: {}: expected inet or inet6", quoted(text)),
    }
}

/// Prefixes, separated by spaces or commas.
pub(super) fn prefixes(what: &str, text: &str) -> Result<Vec<IpNet>> {
    text.split([' ', ',', '\t', '\n'])
        .filter(|it| !it.is_empty())
        .map(|it| {
            let net = parse_net(it).with_context(|| format!("node: {what}: expected prefixes"))?;
            ensure!(net == net.trunc(), "node: {what}: {net} has host bits, expected {}", net.trunc());
            Ok(net)
        })
        .collect()
}

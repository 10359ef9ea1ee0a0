//! Values of OVSDB (RFC 7047, 5.1): what a column holds, out of its JSON. A set of one element may stand for itself.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::shown;

/// The rows that a `select` found.
pub fn rows(result: &Value) -> Result<&[Value]> {
    let rows = result.get("rows").and_then(Value::as_array);
    rows.map(Vec::as_slice).with_context(|| format!("{}: expected rows", shown(result)))
}

/// The elements of a set.
pub fn set(value: &Value) -> Result<Vec<&Value>> {
    match value.as_array().map(Vec::as_slice) {
        Some([kind, elements]) if kind == "set" => {
            let elements = elements.as_array().with_context(|| format!("{}: expected a set", shown(value)))?;
            Ok(elements.iter().collect())
        }
        _ => Ok(vec![value]),
    }
}

/// The one element of a set that has one at most.
pub fn optional(value: &Value) -> Result<Option<&Value>> {
    let elements = set(value)?;
    ensure!(elements.len() <= 1, "{}: expected one at most", shown(value));
    Ok(elements.first().copied())
}

/// Text.
pub fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("{}: expected text", shown(value)))
}

/// A number.
pub fn integer(value: &Value) -> Result<i64> {
    value.as_i64().with_context(|| format!("{}: expected an integer", shown(value)))
}

/// The text of a UUID, which is sent back as it came.
pub fn uuid(value: &Value) -> Result<String> {
    match value.as_array().map(Vec::as_slice) {
        Some([kind, Value::String(uuid)]) if kind == "uuid" => Ok(uuid.clone()),
        _ => Err(anyhow::anyhow!("{}: expected a UUID", shown(value))),
    }
}

/// The pairs of a map from text to text.
pub fn map(value: &Value) -> Result<Vec<(String, String)>> {
    let pairs = match value.as_array().map(Vec::as_slice) {
        Some([kind, Value::Array(pairs)]) if kind == "map" => pairs,
        _ => return Err(anyhow::anyhow!("{}: expected a map", shown(value))),
    };
    let pair = |it: &Value| match it.as_array().map(Vec::as_slice) {
        Some([key, value]) => Ok((text(key)?, text(value)?)),
        _ => Err(anyhow::anyhow!("{}: expected a pair", shown(it))),
    };
    pairs.iter().map(pair).collect()
}

//! The state of a namespace as text: everything `ip`, `nft` and /proc/sys/net have to say, a line an object, so that
//! two states can be compared and their difference read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::netns::Netns;
use super::until;

/// A state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
}

/// What `ip` is asked, by the options that all questions of one run of it share.
const IP: [(&[&str], &[&str]); 4] = [
    (&["-d"], &["link show"]),
    (&[], &["addr show"]),
    (&["-4"], &["route show table all", "rule show", "neigh show proxy", "neigh show nud permanent"]),
    (&["-6"], &["route show table all", "rule show", "neigh show proxy", "neigh show nud permanent"]),
];

/// The device that finishes checksums, made once on a node: checksums.rs looks at it.
pub const CHECKSUM_DEVICE: &str = "snf-checksum";
/// Begins the line of a link.
const LINK: &str = "ip -d link show ";

impl Snapshot {
    /// The state now.
    pub fn of(netns: &Netns) -> Result<Self> {
        let mut lines = BTreeSet::new();
        for (options, questions) in IP {
            let answers = ask(netns, options, questions)?;
            for (question, objects) in questions.iter().zip(answers) {
                add(&mut lines, &format!("ip {} {question}", options.concat()), objects);
            }
        }
        let text = netns.output(Command::new("nft").args(["-j", "list", "ruleset"]))?;
        let ruleset: Value = serde_json::from_str(&text).context("nft -j list ruleset")?;
        add(&mut lines, "nft", ruleset["nftables"].clone());
        let qdiscs = netns.output(Command::new("tc").args(["-j", "qdisc", "show"]))?;
        let is_ours = |it: &Value| it["kind"] == "clsact" || it["kind"] == "ingress";
        let qdiscs: Vec<Value> = serde_json::from_str(&qdiscs).context("tc -j qdisc show")?;
        add(&mut lines, "tc qdisc", qdiscs.into_iter().filter(is_ours).collect());
        let mut files = BTreeSet::new();
        netns.run(|| {
            for folder in ["ipv4/conf", "ipv4/neigh", "ipv6/conf", "ipv6/neigh"] {
                walk(&Path::new("/proc/sys/net").join(folder), &mut files);
            }
            for name in ["ipv4/ip_forward", "ipv4/ip_nonlocal_bind", "ipv6/ip_nonlocal_bind"] {
                read(&Path::new("/proc/sys/net").join(name), &mut files);
            }
        });
        lines.extend(files);
        // What finishes checksums is of the node, and stays.
        let device = (format!("\"{CHECKSUM_DEVICE}\""), format!("/{CHECKSUM_DEVICE}/"));
        lines.retain(|line| !line.contains(&device.0) && !line.contains(&device.1));
        Ok(Self { lines })
    }

    /// Without the tables named snf-network as far as they hold nothing of any NIC: what is left of them is every set
    /// and map that has elements.
    pub fn without_base_tables(mut self) -> Self {
        self.lines.retain(|line| {
            let ours = line.starts_with("nft ")
                && (line.contains(r#""table":"snf-network""#) || line.contains(r#""name":"snf-network""#));
            !ours || line.contains(r#""elem":"#)
        });
        self
    }

    /// Without the numbers of bridge ports: each is the lowest that is free when the port comes, so it depends on who came and went
    /// before.
    pub fn without_port_numbers(mut self) -> Self {
        let unnumbered = |line: String| {
            let Some(object) = line.strip_prefix(LINK).filter(|_| line.contains("info_slave_data")) else {
                return line;
            };
            let Ok(mut object) = serde_json::from_str::<Value>(object) else { return line };
            if let Some(port) = object["linkinfo"]["info_slave_data"].as_object_mut() {
                port.retain(|key, _| !["no", "id", "designated_port"].contains(&key.as_str()));
            }
            format!("{LINK}{object}")
        };
        self.lines = self.lines.into_iter().map(unnumbered).collect();
        self
    }

    /// With a line for each element of each set and map of nf_tables, in place of one for all of them.
    pub fn by_element(mut self) -> Result<Self> {
        let (whole, mut lines) = self
            .lines
            .into_iter()
            .partition::<BTreeSet<_>, _>(|line| line.starts_with("nft ") && line.contains(r#""elem":"#));
        for line in whole {
            let mut object: Value = serde_json::from_str(line.trim_start_matches("nft "))?;
            let kind = if object["set"].is_object() { "set" } else { "map" };
            let elements = object[kind]["elem"].take();
            for element in elements.as_array().into_iter().flatten() {
                lines.insert(format!("nft element {} {} {element}", object[kind]["family"], object[kind]["name"]));
            }
            if let Some(fields) = object[kind].as_object_mut() {
                fields.remove("elem");
            }
            lines.insert(format!("nft {object}"));
        }
        self.lines = lines;
        Ok(self)
    }

    /// The lines that name `word`, such as an interface.
    pub fn naming(&self, word: &str) -> Vec<&str> {
        let quoted = format!("\"{word}\"");
        let folder = format!("/{word}/");
        self.lines.iter().filter(|l| l.contains(&quoted) || l.contains(&folder)).map(String::as_str).collect()
    }

    /// The lines that none of these has.
    pub fn beyond(&self, others: &[&Self]) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(|it| !others.iter().any(|other| other.lines.contains(*it))).map(String::as_str)
    }

    /// The lines that another one has, too.
    pub fn common<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = &'s str> {
        self.lines.intersection(&other.lines).map(String::as_str)
    }

    /// Whether it has this line.
    pub fn has(&self, line: &str) -> bool {
        self.lines.contains(line)
    }

    /// That `netns` comes to this state, and what differs if it does not. `view` leaves out what may differ.
    pub fn returns_in(&self, netns: &Netns, view: fn(Snapshot) -> Snapshot) -> Result<()> {
        let expected = view(self.clone());
        let last = RefCell::new(None);
        let waited = until("the kernel's state to be the expected one", || {
            let now = view(Self::of(netns)?);
            let same = now == expected;
            last.replace(Some(now));
            Ok(same)
        });
        match last.into_inner() {
            Some(now) => waited.with_context(|| expected.difference(&now)),
            None => waited,
        }
    }

    /// That another state equals this one.
    pub fn equals(&self, other: &Self) -> Result<()> {
        ensure!(self == other, "the states differ:{}", self.difference(other));
        Ok(())
    }

    /// What is only here (`-`) and only there (`+`).
    pub fn difference(&self, other: &Self) -> String {
        let mut text = String::new();
        for line in self.lines.difference(&other.lines) {
            let _ = write!(text, "\n  - {line}");
        }
        for line in other.lines.difference(&self.lines) {
            let _ = write!(text, "\n  + {line}");
        }
        text
    }
}

/// What `ip` answers, in JSON.
fn ask(netns: &Netns, options: &[&str], questions: &[&str]) -> Result<Vec<Value>> {
    let mut command = Command::new("ip");
    command.args(["-j", "-p"]).args(options).args(["-batch", "-"]);
    let text = netns.fed(&mut command, &questions.iter().map(|it| format!("{it}\n")).collect::<String>())?;
    let answers: Vec<Value> = serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>()?;
    // Where there is nothing, some versions print nothing at all.
    match (answers.len(), questions) {
        (0, [_]) => Ok(vec![Value::Null]),
        (count, _) if count == questions.len() => Ok(answers),
        (_, [_]) => bail!("{options:?} {questions:?}: {text}"),
        _ => Ok(questions.iter().map(|it| ask(netns, options, &[it])).collect::<Result<Vec<_>>>()?.concat()),
    }
}

/// What numbers the kernel gives, and what changes by itself.
fn is_volatile(key: &str) -> bool {
    [
        "handle",
        "ifindex",
        "link_index",
        "link_netnsid",
        "metainfo",
        "packets",
        "bytes",
        "expires",
        "used",
        "operstate",
        // The first up of a link gives it one, for good.
        "qdisc",
        "root_id",
        "bridge_id",
        "designated_root",
    ]
    .contains(&key)
        || key.ends_with("_life_time")
        || key.ends_with("_timer")
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !is_volatile(key));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => {
            items.iter_mut().for_each(strip);
            // The order of elements, flags and next hops says nothing here; that of a rule's expressions does, but two
            // rules never differ in it alone.
            items.sort_by_key(Value::to_string);
        }
        _ => {}
    }
}

fn add(lines: &mut BTreeSet<String>, what: &str, objects: Value) {
    let Value::Array(objects) = objects else { return };
    let mut positions = BTreeMap::new();
    for mut object in objects {
        strip(&mut object);
        if let Some(rule) = object.get_mut("rule") {
            // The order of the rules of a chain is part of the state.
            let count = positions.entry(format!("{} {} {}", rule["family"], rule["table"], rule["chain"])).or_insert(0);
            rule["position"] = Value::from(*count);
            *count += 1;
        }
        if object != Value::Object(serde_json::Map::new()) {
            // Twice the same object is another state than once.
            let line = format!("{what} {object}");
            let mut again = line.clone();
            while !lines.insert(again.clone()) {
                again.push_str(" (again)");
            }
        }
    }
}

fn walk(folder: &Path, lines: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() { walk(&path, lines) } else { read(&path, lines) }
    }
}

fn read(path: &Path, lines: &mut BTreeSet<String>) {
    // Some can only be written, or have no value yet (stable_secret).
    if let Ok(value) = fs::read_to_string(path) {
        lines.insert(format!("{} = {}", path.display(), value.trim()));
    }
}

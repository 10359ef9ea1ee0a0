//! What status prints: a table for people, or JSON (docs/commands.md has its form).

use std::time::SystemTime;

use crate::addr::{Family, IfName};
use crate::commands::inspect::{Condition, Inspection, NicRow, UplinkRow};
use crate::commands::recorded::{RecordedNic, RecordedUplink};
use crate::json::Json;
use crate::nic::{Mode, Nic, tag_faults};
use crate::object::TABLE_MAIN;
use crate::record::Record;
use crate::routing_tables;
use crate::verify::{Drift, Thing};

/// Of the JSON's form.
const VERSION: u64 = 1;
/// Stands for what is not known or not there.
const NONE: &str = "-";

/// How records come back.
const RESTORE: &str = "which are up: nothing of them is removed, and nothing repaired. \
    The next ifup of a NIC records it again (migrate or reboot the instance), node up an uplink";

/// What is known of a NIC from its record in force.
struct Facts {
    instance: String,
    nic: Option<Nic>,
    index: Option<u32>,
    uplinks: Vec<IfName>,
}

impl Facts {
    fn of(recorded: &RecordedNic) -> Self {
        let record = recorded.records.last().map(|it| &it.record);
        let nic = |record: &Record| Nic::new(&record.raw, &record.settings, routing_tables::resolve).ok();
        let nic = record.and_then(nic);
        let mut uplinks: Vec<_> =
            record.into_iter().flat_map(|it| it.facts.uplinks.iter().flatten()).cloned().collect();
        uplinks.sort_unstable();
        uplinks.dedup();
        Self {
            instance: nic.as_ref().map_or(NONE.to_owned(), |it| it.instance.clone()),
            index: record.map(|it| it.facts.link.index),
            nic,
            uplinks,
        }
    }

    fn mode(&self) -> Option<&'static str> {
        self.nic.as_ref().map(|it| match it.mode {
            Mode::Routed { .. } => "routed",
            Mode::Bridged { .. } => "bridged",
            Mode::OpenVswitch { .. } => "openvswitch",
            Mode::Ext => "ext",
        })
    }

    fn table(&self) -> Option<u32> {
        match self.nic.as_ref()?.mode {
            Mode::Routed { table } => Some(table),
            _ => None,
        }
    }

    fn bridge(&self) -> Option<&IfName> {
        match &self.nic.as_ref()?.mode {
            Mode::Bridged { bridge, .. } => Some(bridge),
            _ => None,
        }
    }

    /// The tags by their default names.
    fn setups(&self) -> Vec<String> {
        let Some(nic) = &self.nic else { return Vec::new() };
        let mut setups: Vec<_> = nic.setups.iter().map(|it| it.default_tag().to_owned()).collect();
        setups.extend(nic.firewall.map(|it| it.to_string()));
        setups
    }

    fn addresses(&self) -> Vec<String> {
        let Some(nic) = &self.nic else { return Vec::new() };
        Family::BOTH.into_iter().filter_map(|it| nic.endpoint(it)).map(|it| it.address.to_string()).collect()
    }
}

/// What is wrong with the NIC's tags: those that the next ifup warns of or refuses.
fn warnings(recorded: &RecordedNic) -> Vec<String> {
    let record = recorded.records.last().map(|it| &it.record);
    let faults = record.map(|it| tag_faults(&it.raw, &it.settings)).unwrap_or_default();
    faults.into_iter().map(|it| it.text).collect()
}

fn time(since: Option<SystemTime>) -> Option<String> {
    since.map(|it| humantime::format_rfc3339_seconds(it).to_string())
}

fn joined(words: &[impl ToString]) -> String {
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    if words.is_empty() { NONE.to_owned() } else { words.join(",") }
}

/// The table: a line for each NIC and uplink, and below it what is not as it should be.
pub fn table(inspection: &Inspection) -> String {
    let mut lines: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    let head = ["INTERFACE", "INSTANCE", "NIC", "MODE", "SETUPS", "ADDRESSES", "ON", "SINCE", "DROPPED", "STATE"];
    lines.push((head.map(str::to_owned).to_vec(), Vec::new()));
    lines.extend(inspection.nics.iter().map(nic_line));
    lines.extend(inspection.uplinks.iter().map(uplink_line));
    let mut text = aligned(&lines);
    for (place, (interface, thing)) in inspection.of_nobody().enumerate() {
        text += if place == 0 { "without a record:\n" } else { "" };
        text += &format!("  {}: foreign: {thing}\n", interface.map_or(NONE, IfName::as_str));
    }
    if !inspection.unrecorded.is_empty() {
        text += &format!("  no record of {}, {RESTORE}\n", joined(&inspection.unrecorded));
    }
    text
}

fn aligned(lines: &[(Vec<String>, Vec<String>)]) -> String {
    let width = |column: usize| lines.iter().filter_map(|it| it.0.get(column)).map(|it| it.chars().count()).max();
    let columns = lines.first().map_or(0, |it| it.0.len());
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (cells, below) in lines {
        let cells: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
        for line in below {
            text += &format!("  {line}\n");
        }
    }
    text
}

fn nic_line(row: &NicRow) -> (Vec<String>, Vec<String>) {
    let since = time(row.since).unwrap_or(NONE.to_owned());
    let (recorded, condition) = match &row.nic {
        Ok(nic) => nic,
        Err(error) => {
            let mut cells = vec![NONE.to_owned(); 10];
            (cells[0], cells[7], cells[9]) = (row.interface.to_string(), since, "error".to_owned());
            return (cells, vec![format!("error: {error:#}")]);
        }
    };
    let facts = Facts::of(recorded);
    let mode = facts.mode().unwrap_or(NONE);
    let on = match (facts.table(), facts.bridge()) {
        (_, Some(bridge)) => bridge.to_string(),
        (Some(table), None) => format!("{} table {}", joined(&facts.uplinks), table_name(table)),
        (None, None) => NONE.to_owned(),
    };
    let number = facts.nic.as_ref().and_then(|it| it.index).map_or(NONE.to_owned(), |it| it.to_string());
    let dropped = row.dropped().map_or(NONE.to_owned(), |it| it.to_string());
    let (state, mut below) = match condition {
        Condition::There(drift) if drift.is_empty() => ("in sync", Vec::new()),
        Condition::There(drift) => ("drift", drift.iter().map(Drift::to_string).collect()),
        Condition::Gone(things) => ("gone", things.iter().map(|it| format!("foreign: {it}")).collect()),
    };
    let no_default = |(family, table): &(Family, u32)| {
        format!("cut off: table {} has no {family} default route", table_name(*table))
    };
    below.extend(row.cut_off.iter().map(no_default));
    below.extend(warnings(recorded).into_iter().map(|it| format!("warning: {it}")));
    let cells = [row.interface.to_string(), facts.instance.clone(), number, mode.to_owned(), joined(&facts.setups())];
    let more = [joined(&facts.addresses()), on, since, dropped, state.to_owned()];
    (cells.into_iter().chain(more).collect(), below)
}

fn table_name(table: u32) -> String {
    if table == TABLE_MAIN { "main".to_owned() } else { table.to_string() }
}

fn uplink_line(row: &UplinkRow) -> (Vec<String>, Vec<String>) {
    let mut cells = vec![NONE.to_owned(); 10];
    cells[0] = row.device.to_string();
    cells[3] = "uplink".to_owned();
    cells[7] = time(row.since).unwrap_or(NONE.to_owned());
    let below = match &row.uplink {
        Err(error) => {
            cells[9] = "error".to_owned();
            vec![format!("error: {error:#}")]
        }
        Ok((recorded, drift)) => {
            let uplink = &recorded.uplink;
            cells[5] = joined(&uplink.routes);
            let gateway = uplink.gateway.map(|it| format!("via {it} ")).unwrap_or_default();
            cells[6] = format!("{gateway}table {}", table_name(uplink.table));
            cells[9] = uplink_state(recorded, drift).to_owned();
            drift.iter().map(Drift::to_string).collect()
        }
    };
    (cells, below)
}

fn uplink_state(recorded: &RecordedUplink, drift: &[Drift]) -> &'static str {
    match (recorded.uplink.down, drift) {
        (true, _) => "down",
        (false, []) => "in sync",
        (false, _) => "drift",
    }
}

/// All of it as one value.
pub fn json(inspection: &Inspection) -> Json {
    let orphans = inspection.of_nobody().map(|(interface, thing)| {
        Json::Object(vec![("interface", Json::text(interface)), ("what", Json::Text(thing.to_string()))])
    });
    Json::Object(vec![
        ("version", Json::Number(VERSION)),
        ("nics", Json::List(inspection.nics.iter().map(nic_json).collect())),
        ("uplinks", Json::List(inspection.uplinks.iter().map(uplink_json).collect())),
        ("strays", Json::List(orphans.collect())),
        ("unrecorded", Json::texts(&inspection.unrecorded)),
    ])
}

/// `state`, `drift` and `error` of a NIC or an uplink.
fn state_json(state: &'static str, drift: Vec<Json>, error: Option<String>) -> [(&'static str, Json); 3] {
    [("state", Json::Text(state.to_owned())), ("drift", Json::List(drift)), ("error", Json::text(error))]
}

fn drift_json(drift: &Drift) -> Json {
    let what = Json::Text(drift.thing().to_string());
    Json::Object(vec![
        ("kind", Json::Text(drift.kind().to_owned())),
        ("what", what),
        ("found", Json::text(drift.found())),
    ])
}

fn nic_json(row: &NicRow) -> Json {
    let mut members =
        vec![("interface", Json::Text(row.interface.to_string())), ("since", Json::text(time(row.since)))];
    let state = match &row.nic {
        Err(error) => state_json("error", Vec::new(), Some(format!("{error:#}"))),
        Ok((recorded, condition)) => {
            let facts = Facts::of(recorded);
            let nic = facts.nic.as_ref();
            members.extend([
                ("ifindex", Json::number(facts.index)),
                ("instance", Json::text(nic.map(|it| &it.instance))),
                ("nic", Json::number(nic.and_then(|it| it.index))),
                ("uuid", Json::text(nic.and_then(|it| it.uuid.as_ref()))),
                ("mode", Json::text(facts.mode())),
                ("table", Json::number(facts.table())),
                ("bridge", Json::text(facts.bridge())),
                ("uplinks", Json::texts(&facts.uplinks)),
                ("setups", Json::texts(facts.setups())),
                ("addresses", Json::texts(facts.addresses())),
                ("dropped", Json::number(row.dropped())),
                ("cut_off", Json::texts(row.cut_off.iter().map(|it| it.0.sysctl()))),
                ("warnings", Json::texts(warnings(recorded))),
            ]);
            match condition {
                Condition::There(drift) if drift.is_empty() => state_json("in sync", Vec::new(), None),
                Condition::There(drift) => state_json("drift", drift.iter().map(drift_json).collect(), None),
                Condition::Gone(things) => {
                    let foreign = |thing: &Thing| drift_json(&Drift::Foreign(thing.clone()));
                    state_json("gone", things.iter().map(foreign).collect(), None)
                }
            }
        }
    };
    members.extend(state);
    Json::Object(members)
}

fn uplink_json(row: &UplinkRow) -> Json {
    let mut members = vec![
        ("interface", Json::Text(row.device.to_string())),
        ("family", Json::Text(row.family.sysctl().to_owned())),
        ("since", Json::text(time(row.since))),
    ];
    let state = match &row.uplink {
        Err(error) => state_json("error", Vec::new(), Some(format!("{error:#}"))),
        Ok((recorded, drift)) => {
            let uplink = &recorded.uplink;
            members.extend([
                ("table", Json::Number(uplink.table.into())),
                ("gateway", Json::text(uplink.gateway)),
                ("routes", Json::texts(&uplink.routes)),
            ]);
            state_json(uplink_state(recorded, drift), drift.iter().map(drift_json).collect(), None)
        }
    };
    members.extend(state);
    Json::Object(members)
}

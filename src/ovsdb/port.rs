//! The ports of Open vSwitch's bridges: what stands, and how it comes to stand or to go (ovs-vswitchd.conf.db(5), tables
//! Bridge, Port, Interface).

use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::value::{integer, map, optional, rows, set, text, uuid};
use super::{Ovsdb, PATIENCE, waited_in_vain};
use crate::addr::IfName;
use crate::object::{OvsPort, OvsVlans};

/// A port as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortState {
    uuid: String,
    /// Its bridge, by name.
    pub bridge: String,
    /// Its VLANs.
    pub vlans: OvsVlans,
    /// Whether it takes no part in a spanning tree.
    pub out_of_spanning_tree: bool,
    /// What the interface of the same name says of itself to others.
    pub external_ids: Vec<(String, String)>,
    /// Whether it is the port of the interface of the same name, a device of the system, and of no other.
    pub plain: bool,
    /// What ovs-vswitchd says: the number by which it takes frames, negative if it could not.
    pub ofport: Option<i64>,
    /// What ovs-vswitchd says: why it could not.
    pub error: Option<String>,
}

impl PortState {
    /// Whether it is what `want` says, and ovs-vswitchd has taken it.
    pub fn stands_as(&self, want: &OvsPort) -> bool {
        self.plain
            && self.bridge == want.bridge.as_str()
            && self.vlans == want.vlans
            && self.out_of_spanning_tree
            && self.is_of(want)
            && self.error.is_none()
            && self.taken()
    }

    /// Whether it was made for this very NIC and TAP.
    pub fn is_of(&self, want: &OvsPort) -> bool {
        want.external_ids.iter().all(|it| self.says(it))
    }

    fn is_ours(&self) -> bool {
        self.says(&(OvsPort::OWNER, OvsPort::US.to_owned()))
    }

    fn says(&self, (key, value): &(&str, String)) -> bool {
        self.external_ids.iter().any(|it| it.0 == *key && it.1 == *value)
    }

    /// Whether ovs-vswitchd has it, as far as it has told.
    fn taken(&self) -> bool {
        self.ofport.is_some_and(|it| it > 0)
    }

    /// Whether ovs-vswitchd would go on with the device that it has, though `want` is of another one: a port that is replaced on its
    /// bridge keeps its device, and what was a TAP of this name may be gone. The TAP's number is what `want` says of it.
    fn keeps_another_device(&self, want: &OvsPort) -> bool {
        let same =
            want.external_ids.iter().filter(|it| [OvsPort::OWNER, OvsPort::IFINDEX, OvsPort::BOOT].contains(&it.0));
        self.taken() && self.bridge == want.bridge.as_str() && !same.into_iter().all(|it| self.says(it))
    }
}

/// Whether there is such a bridge.
///
/// # Errors
/// What is wrong with ovsdb-server.
pub fn bridge_exists(socket: &Path, bridge: &IfName) -> Result<bool> {
    Ok(Ovsdb::connect(socket)?.bridge(bridge)?.is_some())
}

/// The port of this name, on whichever bridge.
///
/// # Errors
/// What is wrong with ovsdb-server.
pub fn port_state(socket: &Path, name: &IfName) -> Result<Option<PortState>> {
    Ovsdb::connect(socket)?.standing(name)
}

/// The ports of its bridge that have a VLAN of the port in the other way: as their native one beside others, where it is the port's
/// only one, or the reverse. A frame with two tags passes from such an access port into another VLAN of the native one.
///
/// # Errors
/// What is wrong with ovsdb-server.
pub fn native_and_access(want: &OvsPort) -> Result<Vec<String>> {
    let Some(tag) = want.vlans.tag else { return Ok(Vec::new()) };
    let sharing = json!({
        "op": "select", "table": "Port", "where": [["tag", "==", tag]],
        "columns": ["_uuid", "name", "vlan_mode", "trunks"],
    });
    let results =
        Ovsdb::connect(&want.socket)?.transact(&[named("Bridge", &want.bridge, &["ports"]), sharing], PATIENCE)?;
    let [bridges, ports] = results.as_slice() else { bail!("OVSDB: two results were expected") };
    let Some(bridge) = rows(bridges)?.first() else { return Ok(Vec::new()) };
    let members = set(&bridge["ports"])?.into_iter().map(uuid).collect::<Result<Vec<_>>>()?;
    let is_native = want.vlans.is_native();
    let mut names = Vec::new();
    for port in rows(ports)? {
        let mode = optional(&port["vlan_mode"])?.map(text).transpose()?;
        let native = OvsVlans { mode, ..OvsVlans::default() }.is_native();
        let name = text(&port["name"])?;
        if native != is_native && name != want.name.as_str() && members.contains(&uuid(&port["_uuid"])?) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Makes the port stand as wanted, and waits until ovs-vswitchd has taken it: a guest may come up
/// only in its VLAN. Nothing is changed where it stands so. Any other port of this name goes.
///
/// # Errors
/// What OVSDB refused, or why ovs-vswitchd could not.
pub fn ensure(want: &OvsPort) -> Result<()> {
    let mut ovsdb = Ovsdb::connect(&want.socket)?;
    let bridge = ovsdb.bridge(&want.bridge)?;
    let bridge = bridge.with_context(|| format!("\"{}\": there is no such bridge of Open vSwitch", want.bridge))?;
    let mut standing = ovsdb.standing(&want.name)?;
    if let Some(port) = &standing {
        if port.stands_as(want) {
            return Ok(());
        }
        if port.keeps_another_device(want) {
            ovsdb.delete(port, &want.name)?;
            standing = None;
        }
    }
    let generation = ovsdb.replace(standing.as_ref(), want, &bridge)?;
    ovsdb.carried_out(generation)?;
    let taken = ovsdb.standing(&want.name)?.context("the port is gone again, expected nobody else to change it")?;
    if let Some(error) = &taken.error {
        bail!("ovs-vswitchd: {}", super::words(error));
    }
    ensure!(taken.taken(), "ovs-vswitchd has given it no number (ofport)");
    Ok(())
}

/// Deletes the port, if it was made for this very NIC.
///
/// # Errors
/// What OVSDB refused, or that ovs-vswitchd does not let go of it: then it is gone from the database all the same.
pub fn remove(port: &OvsPort) -> Result<()> {
    let mut ovsdb = Ovsdb::connect(&port.socket)?;
    match ovsdb.standing(&port.name)? {
        Some(standing) if standing.is_of(port) => ovsdb.delete(&standing, &port.name),
        _ => Ok(()),
    }
}

/// Deletes the port of this name, whosever it is or (`ours`) only if we made one: it takes whatever link comes under its name. There
/// is none where no Open vSwitch runs. Returns whether there was one.
///
/// # Errors
/// As above.
pub fn remove_stale(socket: &Path, name: &IfName, ours: bool) -> Result<bool> {
    let Some(mut ovsdb) = running(socket)? else { return Ok(false) };
    let standing = ovsdb.standing(name)?.filter(|it| !ours || it.is_ours());
    standing.map_or(Ok(false), |standing| ovsdb.delete(&standing, name).map(|()| true))
}

/// The ports that we made, but for those of `known` names.
///
/// # Errors
/// What is wrong with ovsdb-server, if one runs.
pub fn own_ports(socket: &Path, known: impl Fn(&IfName) -> bool) -> Result<Vec<OvsPort>> {
    let Some(mut ovsdb) = running(socket)? else { return Ok(Vec::new()) };
    let ours = json!(["map", [[OvsPort::OWNER, OvsPort::US]]]);
    let select = json!({
        "op": "select", "table": "Interface", "where": [["external_ids", "includes", ours]], "columns": ["name"],
    });
    let results = ovsdb.transact(&[select], PATIENCE)?;
    let mut ports = Vec::new();
    for row in results.first().map(rows).transpose()?.unwrap_or_default() {
        // What no link can be called, we did not make.
        let Ok(name) = text(&row["name"]).context("OVSDB")?.parse::<IfName>() else { continue };
        let Some(found) = (if known(&name) { None } else { ovsdb.standing(&name)? }) else { continue };
        let bridge = found.bridge.parse().context("OVSDB: a bridge's name")?;
        let key = |found: &str| OvsPort::KEYS.into_iter().find(|it| *it == found);
        let external_ids = found.external_ids.into_iter().filter_map(|it| Some((key(&it.0)?, it.1))).collect();
        let (socket, vlans) = (socket.to_owned(), found.vlans);
        ports.push(OvsPort { socket, name, bridge, vlans, external_ids });
    }
    Ok(ports)
}

/// A connection, if an ovsdb-server runs.
fn running(socket: &Path) -> Result<Option<Ovsdb>> {
    let absent = [ErrorKind::NotFound, ErrorKind::ConnectionRefused];
    match Ovsdb::connect(socket) {
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|it| absent.contains(&it.kind())) => Ok(None),
        connected => connected.map(Some),
    }
}

/// Reads columns of the row of this name.
fn named(table: &str, name: &IfName, columns: &[&str]) -> Value {
    json!({ "op": "select", "table": table, "where": [["name", "==", name.as_str()]], "columns": columns })
}

fn reference(uuid: &str) -> Value {
    json!(["uuid", uuid])
}

/// An operation that lets the transaction go on only while the port of this name is this one, or there is none.
fn unchanged(name: &IfName, standing: Option<&PortState>) -> Value {
    let rows: Vec<_> = standing.iter().map(|it| json!({ "_uuid": reference(&it.uuid) })).collect();
    json!({
        "op": "wait", "table": "Port", "where": [["name", "==", name.as_str()]], "columns": ["_uuid"],
        "until": "==", "rows": rows, "timeout": 0,
    })
}

/// Takes a port out of its bridge; with nobody to refer to them, its rows are gone then.
fn taken_out(standing: &PortState) -> Value {
    let port = reference(&standing.uuid);
    json!({
        "op": "mutate", "table": "Bridge", "where": [["ports", "includes", port]],
        "mutations": [["ports", "delete", port]],
    })
}

/// Asks ovs-vswitchd to tell when it is done, and reads by which number (the last two operations of a change).
fn asking(name: &IfName) -> [Value; 3] {
    [
        json!({ "op": "comment", "comment": format!("snf-network: {name}") }),
        json!({ "op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]] }),
        json!({ "op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"] }),
    ]
}

impl Ovsdb {
    /// The UUID of the bridge of this name.
    fn bridge(&mut self, name: &IfName) -> Result<Option<String>> {
        let results = self.transact(&[named("Bridge", name, &["_uuid"])], PATIENCE)?;
        let bridge = results.first().map(rows).transpose()?.and_then(<[_]>::first);
        bridge.map(|it| uuid(&it["_uuid"])).transpose().context("OVSDB")
    }

    /// The port of this name.
    fn standing(&mut self, name: &IfName) -> Result<Option<PortState>> {
        let results = self.transact(
            &[
                named("Port", name, &["_uuid", "interfaces", "vlan_mode", "tag", "trunks", "other_config"]),
                named("Interface", name, &["_uuid", "type", "external_ids", "ofport", "error"]),
            ],
            PATIENCE,
        )?;
        let [ports, interfaces] = results.as_slice() else { bail!("OVSDB: two results were expected") };
        let Some(port) = rows(ports)?.first() else { return Ok(None) };
        let mut state = port_of(port, rows(interfaces)?.first()).context("OVSDB")?;
        let holder = json!({
            "op": "select", "table": "Bridge", "where": [["ports", "includes", reference(&state.uuid)]],
            "columns": ["name"],
        });
        let results = self.transact(&[holder], PATIENCE)?;
        let holder = results.first().map(rows).transpose()?.and_then(<[_]>::first);
        // A port that is gone meanwhile is on none.
        let Some(holder) = holder else { return Ok(None) };
        state.bridge = text(&holder["name"]).context("OVSDB")?;
        Ok(Some(state))
    }

    /// Runs operations of which the first one is [`unchanged`].
    fn change(&mut self, operations: &[Value], name: &IfName) -> Result<Vec<Value>> {
        match self.transact(operations, PATIENCE) {
            Err(error) if waited_in_vain(&error) => bail!("OVSDB: somebody else changed port {name} meanwhile"),
            changed => changed,
        }
    }

    /// Puts the port in the place of the one that stands, in one transaction; the generation to wait for.
    fn replace(&mut self, standing: Option<&PortState>, want: &OvsPort, bridge: &str) -> Result<i64> {
        not_the_bridges_own(standing, &want.name)?;
        let ids: Vec<_> = want.external_ids.iter().map(|(key, value)| json!([key, value])).collect();
        let optional = |value: Option<Value>| value.unwrap_or_else(|| json!(["set", []]));
        let mut operations = vec![unchanged(&want.name, standing)];
        operations.extend(standing.map(taken_out));
        operations.extend([
            json!({
                "op": "insert", "table": "Interface", "uuid-name": "interface",
                "row": { "name": want.name.as_str(), "external_ids": ["map", ids] },
            }),
            json!({
                "op": "insert", "table": "Port", "uuid-name": "port",
                "row": {
                    "name": want.name.as_str(),
                    "interfaces": ["named-uuid", "interface"],
                    "vlan_mode": optional(want.vlans.mode.as_deref().map(Value::from)),
                    "tag": optional(want.vlans.tag.map(Value::from)),
                    "trunks": ["set", want.vlans.trunks],
                    "other_config": ["map", OvsPort::NO_SPANNING_TREE],
                },
            }),
            json!({
                "op": "mutate", "table": "Bridge", "where": [["_uuid", "==", reference(bridge)]],
                "mutations": [["ports", "insert", ["named-uuid", "port"]]],
            }),
        ]);
        let into = operations.len() - 1;
        operations.extend(asking(&want.name));
        let results = self.change(&operations, &want.name)?;
        ensure!(results.get(into).is_some_and(|it| it["count"] == 1), "bridge {} is gone meanwhile", want.bridge);
        generation(&results)
    }

    /// Deletes a port, and waits until ovs-vswitchd has let go of it, if it ever had it.
    fn delete(&mut self, standing: &PortState, name: &IfName) -> Result<()> {
        not_the_bridges_own(Some(standing), name)?;
        let mut operations = vec![unchanged(name, Some(standing)), taken_out(standing)];
        operations.extend(asking(name));
        let results = self.change(&operations, name)?;
        let generation = generation(&results)?;
        if !standing.taken() {
            return Ok(());
        }
        self.carried_out(generation).context("the port is gone from the database, but the switch may still have it")
    }
}

/// Without the port of its own name a bridge would lose its device.
fn not_the_bridges_own(standing: Option<&PortState>, name: &IfName) -> Result<()> {
    let own = standing.is_some_and(|it| it.bridge == name.as_str());
    ensure!(!own, "{name} is the port of bridge {name} itself, expected a TAP's");
    Ok(())
}

fn generation(results: &[Value]) -> Result<i64> {
    let row =
        results.last().map(rows).transpose()?.and_then(<[_]>::first).context("OVSDB: table Open_vSwitch is empty")?;
    integer(&row["next_cfg"]).context("OVSDB: next_cfg")
}

/// Out of the rows of a port and of the interface of the same name; its bridge is yet to come.
pub(super) fn port_of(port: &Value, interface: Option<&Value>) -> Result<PortState> {
    let mut vlans = OvsVlans {
        mode: optional(&port["vlan_mode"])?.map(text).transpose()?,
        tag: optional(&port["tag"])?.map(integer).transpose()?.map(u16::try_from).transpose()?,
        trunks: set(&port["trunks"])?.into_iter().map(|it| Ok(u16::try_from(integer(it)?)?)).collect::<Result<_>>()?,
    };
    vlans.trunks.sort_unstable();
    let settings = map(&port["other_config"])?;
    let is_set = |(key, value): (&str, &str)| settings.iter().any(|it| it.0 == key && it.1 == value);
    let mut state = PortState {
        uuid: uuid(&port["_uuid"])?,
        bridge: String::new(),
        vlans,
        out_of_spanning_tree: OvsPort::NO_SPANNING_TREE.into_iter().all(is_set),
        external_ids: Vec::new(),
        plain: false,
        ofport: None,
        error: None,
    };
    if let Some(interface) = interface {
        let own = uuid(&interface["_uuid"])?;
        let members = set(&port["interfaces"])?.into_iter().map(uuid).collect::<Result<Vec<_>>>()?;
        state.plain = members == [own] && ["", "system"].contains(&text(&interface["type"])?.as_str());
        state.external_ids = map(&interface["external_ids"])?;
        state.ofport = optional(&interface["ofport"])?.map(integer).transpose()?;
        state.error = optional(&interface["error"])?.map(text).transpose()?;
    }
    Ok(state)
}

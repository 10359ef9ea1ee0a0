//! What Xen's hotplug tells us of a NIC, and the file in which Ganeti describes it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{RawNic, Unset, utf8, variable};
use crate::printable::quoted;
use crate::sys::files;

/// Longer than any NIC file: an instance's tags are at most 8192 bytes or so.
const MAX_FILE: u64 = 65536;
const SOCKET: &str = "/run/xenstored/socket";

/// The variables of Xen's hotplug scripts, unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XenHotplug {
    /// vif: the interface of the paravirtual card, `vifD.N`.
    pub vif: Option<OsString>,
    /// INTERFACE: that of the emulated card, `vifD.N-emu`.
    pub interface: Option<OsString>,
    /// XENBUS_PATH: the backend's folder in xenstore, `backend/vif/D/N`.
    pub xenbus_path: Option<OsString>,
    /// Where xenstored listens (XENSTORED_PATH, else the socket in XENSTORED_RUNDIR).
    pub xenstored: PathBuf,
}

/// A network backend in xenstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its folder.
    pub path: String,
    /// The guest's domain.
    pub domain: u32,
    /// Its place among the guest's NICs.
    pub device: u32,
}

impl XenHotplug {
    /// As the environment of this process has it.
    pub fn from_process() -> Self {
        Self::from_variables(variable)
    }

    /// As the variables that `value` knows have it.
    pub fn from_variables(mut value: impl FnMut(&'static str) -> Option<OsString>) -> Self {
        let mut get = |name| value(name).filter(|value| !value.is_empty());
        let folder = |folder: OsString| Path::new(&folder).join("socket");
        let xenstored = get("XENSTORED_PATH").map(PathBuf::from).or_else(|| get("XENSTORED_RUNDIR").map(folder));
        Self {
            vif: get("vif"),
            interface: get("INTERFACE"),
            xenbus_path: get("XENBUS_PATH"),
            xenstored: xenstored.unwrap_or_else(|| SOCKET.into()),
        }
    }

    /// The interface of the paravirtual card, or that of the emulated one.
    ///
    /// # Errors
    /// If its variable is not set or not UTF-8.
    pub fn interface(&self, emulated: bool) -> Result<String> {
        let (name, value) = if emulated { ("INTERFACE", &self.interface) } else { ("vif", &self.vif) };
        let value = value.clone().with_context(|| format!("{name} is not set, expected the interface's name"))?;
        utf8(name, value)
    }

    /// The backend that XENBUS_PATH names.
    ///
    /// # Errors
    /// If it is not set or not such a path.
    pub fn backend(&self) -> Result<Backend> {
        const EXPECTED: &str = "expected backend/vif/DOMAIN/DEVICE";
        let path = self.xenbus_path.clone().with_context(|| format!("XENBUS_PATH is not set, {EXPECTED}"))?;
        let path = utf8("XENBUS_PATH", path)?;
        let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let of_paths = |b: u8| b.is_ascii_alphanumeric() || b"-/_@".contains(&b);
        let parts: Vec<_> = path.split('/').collect();
        if let [.., "backend", "vif", domain, device] = parts[..]
            && path.bytes().all(of_paths)
            && let (Some(domain), Some(device)) = (number(domain), number(device))
        {
            return Ok(Backend { domain, device, path });
        }
        bail!("XENBUS_PATH {}: {EXPECTED}", quoted(&path));
    }
}

impl RawNic {
    /// The NIC in a file that Ganeti wrote for Xen's hotplug. It names neither INSTANCE nor INTERFACE.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is not what Ganeti writes.
    pub fn from_xen_file(file: &Path) -> Result<Self> {
        let read = || {
            let text = files::read_needed(file, MAX_FILE)?;
            Self::from_xen_text(&String::from_utf8(text).ok().context("expected UTF-8")?)
        };
        read().with_context(|| format!("Ganeti's NIC file {}", file.display()))
    }

    pub(crate) fn from_xen_text(text: &str) -> Result<Self> {
        let assignments = assignments(text)?;
        let value = |name| assignments.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let nic = Self::from_variables(Unset::EmptyOrNone, value)?;
        Ok(Self { instance: None, interface: None, ..nic })
    }
}

/// What _WriteNICInfoFile of Ganeti's hv_xen.py wrote: `TAGS="a\ b"`, `NETWORK_X="value"`, and `KEY=value` with no quoting at
/// all. A tag may end with a line break, so a value in quotes may be of several lines.
fn assignments(text: &str) -> Result<Vec<(&str, String)>> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('\n') {
            rest = behind;
            continue;
        }
        let line = rest.lines().next().unwrap_or_default();
        let (key, behind) = rest.split_once('=').filter(|(key, _)| is_key(key)).with_context(|| expected(line))?;
        let value;
        (value, rest) = match behind.strip_prefix('"') {
            Some(quoted) => {
                let closed = quoted.split_once('"').filter(|(_, rest)| rest.is_empty() || rest.starts_with('\n'));
                closed.with_context(|| expected(line))?
            }
            None => behind.split_once('\n').unwrap_or((behind, "")),
        };
        // Somebody's line break in a value, or not Ganeti's file.
        ensure!(found.iter().all(|it| it.0 != key), "{key}: expected it only once");
        found.push((key, if key == "TAGS" { value.replace("\\ ", " ") } else { value.to_owned() }));
    }
    Ok(found)
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn expected(line: &str) -> String {
    format!("{}: expected KEY=value or KEY=\"value\"", quoted(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hotplug(variables: &[(&str, &str)]) -> XenHotplug {
        XenHotplug::from_variables(|name| variables.iter().find(|it| it.0 == name).map(|it| it.1.into()))
    }

    #[test]
    fn the_socket_is_found() {
        for (variables, expected) in [
            (&[][..], SOCKET),
            (&[("XENSTORED_PATH", ""), ("XENSTORED_RUNDIR", "")], SOCKET),
            (&[("XENSTORED_RUNDIR", "/r")], "/r/socket"),
            (&[("XENSTORED_PATH", "/p"), ("XENSTORED_RUNDIR", "/r")], "/p"),
        ] {
            assert_eq!(hotplug(variables).xenstored, Path::new(expected));
        }
    }

    #[test]
    fn the_backend_is_a_vif() {
        let backend = hotplug(&[("XENBUS_PATH", "backend/vif/7/0")]).backend().expect("a backend");
        assert_eq!((backend.domain, backend.device), (7, 0));
        hotplug(&[("XENBUS_PATH", "/local/domain/0/backend/vif/7/0")]).backend().expect("a backend");
        for bad in ["", "backend/vbd/7/0", "backend/vif/7", "backend/vif/7/+1", "x y/backend/vif/7/0", "backend/vif/7/"]
        {
            let error = hotplug(&[("XENBUS_PATH", bad)]).backend().expect_err(bad).to_string();
            assert!(error.starts_with("XENBUS_PATH") && error.contains("expected backend/vif"), "{error}");
        }
    }

    #[test]
    fn ganetis_file_is_read() {
        let text = "TAGS=\"a\\ synnefo:network:0:protected\n\\ c\"\nNETWORK_NAME=\"public\"\nNETWORK_TAGS=\"dns nfdhcpd\"\n\
                    MAC=aa:00:00:00:00:01\nIP=10.0.0.2\nINTERFACE_NAME=it's $(x) = y\nMODE=routed\nLINK=100\nVLAN=\n\
                    BRIDGE=None\nINSTANCE=other\nINTERFACE=tap9\nNETWORK_UNHEARD_OF=\"x\"";
        let nic = RawNic::from_xen_text(text).expect("understood");
        let expected = RawNic {
            tags: Some("a synnefo:network:0:protected\n c".to_owned()),
            network_name: Some("public".to_owned()),
            network_tags: Some("dns nfdhcpd".to_owned()),
            mac: Some("aa:00:00:00:00:01".to_owned()),
            ip: Some("10.0.0.2".to_owned()),
            interface_name: Some("it's $(x) = y".to_owned()),
            mode: Some("routed".to_owned()),
            link: Some("100".to_owned()),
            ..RawNic::default()
        };
        assert_eq!(nic, expected);
        assert_eq!(RawNic::from_xen_text("TAGS=\"\"\n\n").expect("understood"), RawNic::default());
    }

    #[test]
    fn other_files_are_errors() {
        for (text, expected) in [
            ("IP", "\"IP\": expected KEY=value"),
            ("ip=1", "expected KEY=value"),
            ("export IP=1", "expected KEY=value"),
            ("TAGS=\"a", "expected KEY=value"),
            ("TAGS=\"a\"b\n", "expected KEY=value"),
            ("INTERFACE_NAME=x\nMAC=a\nMAC=b\n", "MAC: expected it only once"),
        ] {
            let error = format!("{:#}", RawNic::from_xen_text(text).expect_err(text));
            assert!(error.contains(expected), "{error}");
        }
        let error = format!("{:#}", RawNic::from_xen_file(Path::new("/nonexistent/0")).expect_err("no file"));
        assert!(error.starts_with("Ganeti's NIC file /nonexistent/0: No such file"), "{error}");
    }
}

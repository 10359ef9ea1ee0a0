//! Xen's hotplug: vif-custom, for the interfaces of paravirtual and of emulated cards.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};

use super::{Call, conclude, nic};
use crate::addr::is_domain_name;
use crate::deadline;
use crate::environment::{Backend, RawNic, XenHotplug};
use crate::log::Log;
use crate::printable::quoted;
use crate::settings::Settings;
use crate::xenstore::Xenstore;

/// Characters of a message that go into xenstore, where a value and its path have 4096 bytes at most.
const MAX_MESSAGE: usize = 512;

/// What a run may take at most, whatever the settings say: Xen gives it 40 s, and undoing and telling come on top.
const XEN: Duration = Duration::from_secs(30);

/// What Xen wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The paravirtual card's interface has come; Xen waits for hotplug-status.
    Online,
    /// It goes.
    Offline,
    /// The emulated card's interface has come.
    Add,
    /// It goes.
    Remove,
}

impl Action {
    /// By the arguments: `online|offline|add|remove [type_if=vif|tap]`. None if it is not for us: a paravirtual card's
    /// interface is online and offline, an emulated one's is added and removed.
    fn of(arguments: &[OsString]) -> Result<Option<Self>> {
        let mut words = arguments.iter().map(|it| it.to_string_lossy());
        let Some(verb) = words.next() else { bail!("expected online, offline, add or remove") };
        let kind = words.find_map(|it| it.strip_prefix("type_if=").map(str::to_owned));
        let emulated = match kind.as_deref() {
            None | Some("vif") => false,
            Some("tap") => true,
            Some(other) => bail!("type_if={}: expected vif or tap", quoted(other)),
        };
        Ok(match (&*verb, emulated) {
            ("online", false) => Some(Self::Online),
            ("offline", false) => Some(Self::Offline),
            ("add", true) => Some(Self::Add),
            ("remove", true) => Some(Self::Remove),
            ("online" | "offline" | "add" | "remove", _) => None,
            (other, _) => bail!("{}: expected online, offline, add or remove", quoted(other)),
        })
    }
}

/// Sets a NIC up or takes it down as Xen says, and tells Xen by hotplug-status and hotplug-error how setting it up went.
///
/// # Errors
/// What failed; Xen knows it too, unless xenstore failed.
pub fn run(call: &Call) -> Result<()> {
    let hotplug = XenHotplug::from_process();
    let (action, done) = match Action::of(&call.arguments) {
        Ok(None) => return Ok(()),
        Ok(Some(action)) => (Some(action), carry_out(action, call, &hotplug)),
        Err(error) => (None, Err(error.context(call.name))),
    };
    match (done, action) {
        (Err(error), Some(Action::Online | Action::Add) | None) => Err(told(&hotplug, error)),
        // Xen removes the backend's folder at this time: to write would make it again.
        (done, _) => done,
    }
}

fn carry_out(action: Action, call: &Call, hotplug: &XenHotplug) -> Result<()> {
    let interface = hotplug.interface(matches!(action, Action::Add | Action::Remove)).context(call.name)?;
    let name = format!("{} {interface}", call.name);
    let (settings, warnings) = Settings::load().with_context(|| name.clone())?;
    deadline::begin(XEN);
    let taken = match action {
        Action::Online | Action::Add => described(hotplug, &interface, &settings),
        // The name of the interface is of this domain alone, so nothing is to be asked, and nothing can be missing.
        Action::Offline | Action::Remove => Ok(RawNic { interface: Some(interface.clone()), ..RawNic::default() }),
    };
    let instance = taken.as_ref().ok().and_then(|raw| raw.instance.clone());
    let mut log = Log::new(["", call.name, &interface, instance.as_deref().unwrap_or("-")]);
    for warning in warnings {
        log.line(format_args!("warning: {warning}"));
    }
    let done = taken.and_then(|raw| match action {
        Action::Online | Action::Add => {
            nic::ifup(&raw, &settings, &mut log)?;
            if settings.ifup_extra_script.is_some() {
                log.line("warning: IFUP_EXTRA_SCRIPT is not run under Xen");
            }
            if action == Action::Online {
                let connected = format!("{}/hotplug-status", hotplug.backend()?.path);
                Xenstore::at(&hotplug.xenstored).write(&connected, "connected")?;
            }
            Ok(())
        }
        // Whether the guest lives on elsewhere is not known here: what is in the DNS is left to snf-network-dnshook.
        Action::Offline | Action::Remove => nic::ifdown(&raw, "", &settings, &mut log),
    });
    conclude(done, &mut log, &settings, &name)
}

/// The NIC as xenstore and Ganeti's file describe it.
fn described(hotplug: &XenHotplug, interface: &str, settings: &Settings) -> Result<RawNic> {
    let Backend { path, domain, device } = hotplug.backend()?;
    let xenstore = Xenstore::at(&hotplug.xenstored);
    let key = format!("/local/domain/{domain}/name");
    let name =
        xenstore.read(&key)?.with_context(|| format!("xenstore: {key} is missing, expected the domain's name"))?;
    let is_known = |instance: &str| settings.ganeti_nic_dir.join(instance).is_dir();
    let instance = instance(&name, is_known).with_context(|| format!("xenstore: {key}"))?;
    let mut raw = RawNic::from_xen_file(&settings.ganeti_nic_dir.join(instance).join(device.to_string()))?;
    if raw.mode.as_deref() == Some("bridged") {
        let bridge = xenstore.read(&format!("{path}/bridge"))?.filter(|bridge| !bridge.is_empty());
        raw.link = bridge.or(raw.link);
    }
    raw.instance = Some(instance.to_owned());
    raw.interface = Some(interface.to_owned());
    Ok(raw)
}

/// The instance of a domain. During a migration the domain's name has a suffix; but an instance may be called so, and then Ganeti
/// has NICs of it.
fn instance(domain: &str, is_known: impl Fn(&str) -> bool) -> Result<&str> {
    let cut = ["--incoming", "--migratedaway"].iter().find_map(|suffix| domain.strip_suffix(suffix));
    // It becomes a part of a file's name.
    if is_domain_name(domain) && (cut.is_none() || is_known(domain)) {
        return Ok(domain);
    }
    match cut {
        Some(name) if is_domain_name(name) => Ok(name),
        _ => bail!("{}: expected a host name", quoted(domain)),
    }
}

/// Tells Xen of a failure. Where that fails too, the error says so.
fn told(hotplug: &XenHotplug, error: Error) -> Error {
    deadline::grace();
    let message = format!("{error:#}").replace(|c: char| c.is_control(), " ");
    let message: String = message.chars().take(MAX_MESSAGE).collect();
    let Ok(Backend { path, .. }) = hotplug.backend() else { return error };
    let xenstore = Xenstore::at(&hotplug.xenstored);
    // The status comes last, as Xen acts on it; it is tried in any case.
    let written = [("hotplug-error", message.as_str()), ("hotplug-status", "error")]
        .map(|(key, value)| xenstore.write(&format!("{path}/{key}"), value));
    match written.into_iter().find_map(Result::err) {
        Some(untold) => Error::msg(format!("{error:#}; Xen was not told: {untold:#}")),
        None => error,
    }
}

/// What a fuzz target does with the words behind vif-custom.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzzed(arguments: &[std::ffi::OsString]) -> Result<()> {
    Action::of(arguments).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_card_has_its_own_verbs() {
        for (words, expected) in [
            ("online", Some(Action::Online)),
            ("online type_if=vif", Some(Action::Online)),
            ("offline type_if=vif", Some(Action::Offline)),
            ("add type_if=tap", Some(Action::Add)),
            ("remove type_if=tap", Some(Action::Remove)),
            ("add", None),
            ("remove type_if=vif", None),
            ("online type_if=tap", None),
            ("offline type_if=tap", None),
        ] {
            let arguments: Vec<_> = words.split(' ').map(OsString::from).collect();
            assert_eq!(Action::of(&arguments).expect(words), expected, "{words}");
        }
        for words in ["", "up", "online type_if=bridge"] {
            let arguments: Vec<_> = words.split(' ').map(OsString::from).collect();
            assert!(Action::of(&arguments).is_err(), "{words}");
        }
        assert!(Action::of(&[]).is_err());
    }

    #[test]
    fn a_migrating_domain_is_still_its_instance() {
        for (domain, expected) in [
            ("web1.example.org", Some("web1.example.org")),
            ("web1--incoming", Some("web1")),
            ("web1--migratedaway", Some("web1")),
            ("--incoming", None),
            ("../../etc", None),
            ("..", None),
            ("web1\n", None),
            ("", None),
        ] {
            assert_eq!(instance(domain, |_| false).ok(), expected, "{domain}");
        }
        // An instance that is called so.
        for domain in ["web1--incoming", "web1--migratedaway"] {
            assert_eq!(instance(domain, |it| it == domain).ok(), Some(domain));
        }
        assert!(instance("../web1--incoming\n", |_| true).is_err());
    }
}

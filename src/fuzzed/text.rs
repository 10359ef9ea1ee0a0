//! Settings, rt_tables, the variables of hooks, ifupdown and Xen, and frames.

use super::{check_error, variables};
use crate::environment::{Caller, IfupdownUplink, RawInstance, XenHotplug, nics_from_variables};
use crate::frame::{Frame, Ip, Message, Packet};
use crate::nic;
use crate::object::shell_quoted;
use crate::printable::is_printable;
use crate::routing_tables;
use crate::settings::{Settings, Setup};

/// A settings file; what was understood of it, written as one, is understood as the same.
pub(super) fn settings(bytes: &[u8]) {
    let (settings, warnings) = match Settings::parse(bytes, "FILE") {
        Err(error) => return check_error(&error),
        Ok(parsed) => parsed,
    };
    assert!(warnings.iter().all(|warning| is_printable(warning)), "{warnings:?}");
    let paths = [&settings.state_dir, &settings.logfile, &settings.nfdhcpd_state_dir, &settings.ovsdb_socket];
    assert!(paths.iter().all(|path| path.is_absolute()), "{settings:?}");
    assert!(settings.tap_constant_mac.is_unicast() && settings.mac_mask.octets()[0] & 0x80 != 0);
    assert!(Setup::ALL.iter().all(|setup| !settings.tag(*setup).contains(char::is_whitespace)));
    let kept = settings.for_record();
    let file: String = kept.iter().map(|(key, value)| format!("{key}={}\n", shell_quoted(value))).collect();
    let (again, warnings) = Settings::parse(file.as_bytes(), "AGAIN").expect("what we wrote");
    assert_eq!((again.for_record(), warnings), (kept.clone(), Vec::new()));
    let value = |name: &str| kept.iter().find(|it| it.0 == name).map(|it| it.1.as_str());
    assert_eq!(Settings::of_record(value).expect("what we wrote").for_record(), kept);
}

/// The name of a table on the first line, iproute2's file behind it.
pub(super) fn rt_tables(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (name, text) = (&bytes[..at], &bytes[at..]);
    let found = routing_tables::table_of(name, text);
    // The first line counts, and a comment none.
    let commented = [b"\n#7 ", name, text].concat();
    assert_eq!(routing_tables::table_of(name, &commented), found);
    let is_word = !name.is_empty() && !name.iter().any(|it| it.is_ascii_whitespace() || *it == b'#');
    if is_word {
        assert_eq!(routing_tables::table_of(name, &[b"\n\t7 ", name, text].concat()), Some(7));
    } else {
        assert_eq!(found, None);
    }
}

/// The variables of a hook, of ifupdown and of Xen's hotplug, which no type keeps apart before they are read.
pub(super) fn hook(bytes: &[u8]) {
    let variables = variables(bytes);
    let value = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.clone());
    let caller = Caller::from_variables(value);
    let texts = [caller.action.clone(), caller.interface.clone(), caller.instance.clone(), Some(caller.hook())];
    assert!(texts.iter().flatten().all(|it| !it.chars().any(char::is_control)), "{caller:?}");
    if let Err(error) = RawInstance::from_variables(value) {
        check_error(&error);
    }
    match nics_from_variables(value) {
        Err(error) => check_error(&error),
        Ok(nics) => {
            for raw in nics {
                match nic::dns_addresses(&raw, &Settings::default()) {
                    Err(error) => check_error(&error),
                    Ok(addresses) => assert!(addresses.iter().all(|it| !it.is_unspecified() && !it.is_multicast())),
                }
            }
        }
    }
    let read = IfupdownUplink::from_variables(value).and_then(|raw| crate::commands::fuzzed::ifupdown(&raw));
    if let Err(error) = read {
        check_error(&error);
    }
    let hotplug = XenHotplug::from_variables(value);
    match hotplug.backend() {
        Err(error) => check_error(&error),
        Ok(backend) => {
            let numbers = backend.path.rsplit('/').take(2).map(|it| it.parse().expect("a number"));
            assert_eq!(numbers.collect::<Vec<u32>>(), [backend.device, backend.domain]);
        }
    }
    for emulated in [false, true] {
        if let Err(error) = hotplug.interface(emulated) {
            check_error(&error);
        }
    }
}

/// A frame off the wire: what was understood of it, sent, is understood as the same.
pub(super) fn frame(bytes: &[u8]) {
    let mut frame = match Frame::parse(bytes) {
        Err(error) => return check_error(&error),
        Ok(frame) => frame,
    };
    for line in [format!("{frame}"), format!("{frame:#}")] {
        assert!(is_printable(&line), "{line:?}");
    }
    if let Packet::Ip(Ip { message: Message::Other { .. }, .. }) = frame.packet {
        // A fragment's place is not kept, so what is sent is a whole packet with the same bytes.
        return;
    }
    let sent = frame.encode().expect("what was a frame fits into one");
    let mut again = Frame::parse(&sent).expect("what we sent");
    // A short frame is padded, which opaque bytes keep.
    for frame in [&mut frame, &mut again] {
        if let Packet::Other { payload, .. } = &mut frame.packet {
            payload.resize(payload.len().max(46), 0);
        }
    }
    assert_eq!(again, frame);
    assert_eq!(again.encode().expect("once more"), sent);
}

//! Tags that do nothing and were probably meant to: a misspelt one could leave a NIC without its filters, and nobody would
//! notice.

use super::tags::{ABOUT_NIC, Profile};
use crate::environment::RawNic;
use crate::printable::quoted;
use crate::settings::{Settings, Setup};

/// What is wrong with a tag of a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFault {
    /// Whether the NIC could have less protection than was meant: ifup refuses it.
    pub refused: bool,
    /// The variable, the tag and what was expected.
    pub text: String,
}

/// The instance's tags that are about all its NICs, each with whether it restricts anybody.
const BARE: [(&str, bool); 5] =
    [("protected", true), ("limited", true), ("unprotected", false), ("disable_ipv4", false), ("disable_ipv6", false)];

/// What is wrong with the tags of a NIC's network and of its instance. Tags that have nothing to do with ours are right.
pub fn tag_faults(raw: &RawNic, settings: &Settings) -> Vec<TagFault> {
    let of_network = raw.network_tags.as_deref().unwrap_or_default().split_ascii_whitespace();
    let of_instance = raw.tags.as_deref().unwrap_or_default().split_ascii_whitespace();
    let of_network = of_network.filter_map(|tag| network_fault(tag, settings));
    of_network.chain(of_instance.filter_map(|tag| instance_fault(tag, raw, settings))).collect()
}

fn network_fault(tag: &str, settings: &Settings) -> Option<TagFault> {
    let fault =
        |refused, what: &str| Some(TagFault { refused, text: format!("NETWORK_TAGS: tag {} {what}", quoted(tag)) });
    if tag == settings.tag(Setup::Masq) {
        return fault(false, "does nothing yet");
    }
    let ours = Setup::ALL.map(|setup| (settings.tag(setup), setup.restricts()));
    if ours.iter().any(|it| it.0 == tag) {
        return None;
    }
    if BARE.iter().any(|it| it.0 == tag) {
        return fault(false, "does nothing: expected it among the instance's tags");
    }
    let (name, restricts) = nearest(tag, &ours)?;
    fault(restricts, &format!("does nothing: expected {}", quoted(name)))
}

fn instance_fault(tag: &str, raw: &RawNic, settings: &Settings) -> Option<TagFault> {
    let fault = |refused, expected: &str| {
        Some(TagFault { refused, text: format!("TAGS: tag {} does nothing: expected {expected}", quoted(tag)) })
    };
    let names = [&raw.interface_index, &raw.interface_name, &raw.interface_uuid].into_iter().flatten();
    let (head, profile) = tag.rsplit_once(':').unwrap_or_default();
    if let Some(rest) = tag.strip_prefix(ABOUT_NIC) {
        return match rest.rsplit_once(':') {
            None => fault(true, "synnefo:network:NIC:PROFILE"),
            Some((nic, profile)) if names.clone().any(|it| it == nic) && Profile::of(profile).is_none() => {
                fault(true, "protected, limited or unprotected at its end")
            }
            Some(_) => None,
        };
    }
    let mut prefixes = names.filter_map(|nic| head.strip_suffix(nic.as_str()));
    if Profile::of(profile).is_some() && prefixes.any(|prefix| is_near(prefix, ABOUT_NIC)) {
        return fault(true, "synnefo:network: at its beginning");
    }
    if BARE.iter().any(|it| it.0 == tag) {
        return None;
    }
    if Setup::ALL.iter().any(|setup| setup.restricts() && settings.tag(*setup) == tag) {
        return fault(false, "it among the network's tags");
    }
    let (name, restricts) = nearest(tag, &BARE)?;
    fault(restricts, &quoted(name).to_string())
}

/// The name that a tag is a misspelling of, if any; one that restricts, if there are several.
fn nearest<'a>(tag: &str, names: &[(&'a str, bool)]) -> Option<(&'a str, bool)> {
    names.iter().copied().filter(|it| is_near(tag, it.0)).max_by_key(|it| it.1)
}

/// Whether the two differ by one character that is missing, added or another one, or by two neighbours that changed places.
/// Capitals, and `_` for `-`, make no difference.
fn is_near(tag: &str, name: &str) -> bool {
    let folded = |text: &str| -> Vec<char> {
        text.chars().map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    let (tag, name) = (folded(tag), folded(name));
    // Of a name of two letters nearly everything short is a misspelling.
    if name.len() < 3 {
        return false;
    }
    let same = tag.iter().zip(&name).take_while(|(a, b)| a == b).count();
    let (tag, name) = (&tag[same..], &name[same..]);
    let same = tag.iter().rev().zip(name.iter().rev()).take_while(|(a, b)| a == b).count();
    match (&tag[..tag.len() - same], &name[..name.len() - same]) {
        ([] | [_], [] | [_]) => true,
        ([a, b], [c, d]) => (a, b) == (d, c),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(network: &str, instance: &str, settings: &Settings) -> Vec<(bool, String)> {
        let raw = RawNic {
            interface_index: Some("0".to_owned()),
            interface_name: Some("eth:0".to_owned()),
            interface_uuid: Some("6f1d2a3e".to_owned()),
            network_tags: Some(network.to_owned()),
            tags: Some(instance.to_owned()),
            ..RawNic::default()
        };
        tag_faults(&raw, settings).into_iter().map(|it| (it.refused, it.text)).collect()
    }

    #[test]
    fn near_is_one_edit_away() {
        for (tag, name, expected) in [
            ("strict-filterd", "strict-filtered", true),
            ("strict-filteredd", "strict-filtered", true),
            ("strict-filterxx", "strict-filtered", false),
            ("strict-filtereb", "strict-filtered", true),
            ("strcit-filtered", "strict-filtered", true),
            ("Strict_Filtered", "strict-filtered", true),
            ("xstrict-filtered", "strict-filtered", true),
            ("dmz", "dns", false),
            ("dn", "dns", true),
            ("dnss", "dns", true),
            ("dsn", "dns", true),
            ("snd", "dns", false),
            ("", "dns", false),
            ("p", "pf", false),
            ("aab", "aa", false),
            ("aabb", "aaab", true),
            ("fütered", "filtered", false),
            ("fältered", "filtered", true),
        ] {
            assert_eq!(is_near(tag, name), expected, "{tag} {name}");
        }
    }

    #[test]
    fn misspelt_tags_of_networks_are_found() {
        let settings = Settings::default();
        for (tag, expected) in [
            ("ip-less-routd", Some((true, "does nothing: expected \"ip-less-routed\""))),
            ("private_filtered", Some((true, "does nothing: expected \"private-filtered\""))),
            ("stric-filtered", Some((true, "does nothing: expected \"strict-filtered\""))),
            ("nfdhcp", Some((false, "does nothing: expected \"nfdhcpd\""))),
            ("dn", Some((false, "does nothing: expected \"dns\""))),
            ("bridge", Some((false, "does nothing: expected \"bridged\""))),
            ("bridgde", Some((false, "does nothing: expected \"bridged\""))),
            ("masq", Some((false, "does nothing yet"))),
            ("protected", Some((false, "does nothing: expected it among the instance's tags"))),
            ("ip-less-routed", None),
            ("dmz", None),
            ("public-2", None),
            ("production", None),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(refused, text)| (*refused, format!("NETWORK_TAGS: tag \"{tag}\" {text}")))
                .collect();
            assert_eq!(faults(tag, "", &settings), expected);
        }
    }

    #[test]
    fn misspelt_tags_of_instances_are_found() {
        let settings = Settings::default();
        for (tag, expected) in [
            ("synnefo:network:0:protectd", Some((true, "protected, limited or unprotected at its end"))),
            ("synnefo:network:eth:0:Protected", Some((true, "protected, limited or unprotected at its end"))),
            ("synnefo:network:6f1d2a3e:", Some((true, "protected, limited or unprotected at its end"))),
            ("synnefo:network:0:strict-filtered", Some((true, "protected, limited or unprotected at its end"))),
            ("synnefo:network:protected", Some((true, "synnefo:network:NIC:PROFILE"))),
            ("synnefo:netwrok:0:protected", Some((true, "synnefo:network: at its beginning"))),
            ("Synnefo:network:eth:0:limited", Some((true, "synnefo:network: at its beginning"))),
            ("protectd", Some((true, "\"protected\""))),
            ("LIMITED", Some((true, "\"limited\""))),
            ("unprotecte", Some((false, "\"unprotected\""))),
            ("nprotected", Some((true, "\"protected\""))),
            ("disable_ipv", Some((false, "\"disable_ipv6\""))),
            ("strict-filtered", Some((false, "it among the network's tags"))),
            ("synnefo:network:0:protected", None),
            ("synnefo:network:1:protectd", None),
            ("disable_ipv4", None),
            ("unprotected", None),
            ("web:0:protected", None),
            ("dns", None),
            ("web", None),
        ] {
            let text = |text| format!("TAGS: tag \"{tag}\" does nothing: expected {text}");
            let expected: Vec<_> = expected.iter().map(|(refused, it)| (*refused, text(it))).collect();
            assert_eq!(faults("", tag, &settings), expected);
        }
    }

    #[test]
    fn names_are_those_of_the_settings() {
        let text = b"STRICT_FILTERED_TAG=gated\nMAC_FILTERED_TAG=pf\nMASQ_TAG=nat\n";
        let (settings, _) = Settings::parse(text, "settings").expect("settings");
        let refused = |tag: &str| faults(tag, "", &settings).first().map(|it| it.0);
        for (tag, expected) in [
            ("gated", None),
            ("gate", Some(true)),
            ("strict-filterd", None),
            ("ps", None),
            ("nat", Some(false)),
            ("masq", None),
        ] {
            assert_eq!(refused(tag), expected, "{tag}");
        }
    }
}

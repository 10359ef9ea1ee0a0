//! What nf_tables answers, by whatever kernel; and our elements, sent and read back.

use super::base::{check_set, seen_chain};
use super::message::{Answer, answers};
use super::query::{decode, drops, presence, stored_elements};
use super::{Presence, encode};
use crate::addr::{IfName, Mac};
use crate::fuzzed::{Choices, check_error};
use crate::ruleset::{Comment, Datatype, Element, Set, TableFamily, Value};
use crate::setup::shared;

/// A datagram: as it is, or, where its first byte is not 0, an element made of the rest.
pub(crate) fn datagram(bytes: &[u8]) {
    match bytes.split_first() {
        None => {}
        Some((0, datagram)) => read(datagram),
        Some((_, rest)) => sent_and_read(&mut Choices::new(rest)),
    }
}

fn sets() -> [Set; 4] {
    use Datatype::{EtherAddr, IfName, Ipv4Addr, Ipv6Addr};
    [
        Set::new("guarded", [IfName]),
        Set { data: Some(Ipv4Addr), ..Set::new("arp_source", [IfName]) },
        Set { counter: true, ..Set::new("sources6", [IfName, Ipv6Addr]) },
        Set::new("from", [IfName, EtherAddr]),
    ]
}

fn read(datagram: &[u8]) {
    let Some(answers) = answers(datagram) else { return };
    assert!(answers.len() <= datagram.len() / 16);
    for (_, answer) in answers {
        match answer {
            Answer::Refused(refusal) => {
                assert_ne!(refusal.error.errno, 0);
                assert!(!format!("{:#}", refusal.explain()).is_empty());
            }
            Answer::Object(object) => {
                let table = &**shared::ARP;
                for chain in &table.chains {
                    seen_chain(table, chain, object.attributes());
                }
                for set in table.sets.iter().chain(&sets()) {
                    if let Err(error) = check_set(TableFamily::Arp, set, object.attributes()) {
                        check_error(&error);
                    }
                }
                for stored in stored_elements(object.attributes()) {
                    for set in sets() {
                        let Some(element) = decode(TableFamily::Inet, &set, stored.clone()) else { continue };
                        assert_eq!(element.key.len(), set.key.len());
                        assert!(!element.to_string().contains('\n'), "{element}");
                        drops(TableFamily::Inet, &set, stored.clone());
                    }
                }
            }
            Answer::Done | Answer::Acknowledged => {}
        }
    }
}

fn value(datatype: Datatype, choices: &mut Choices<'_>) -> Value {
    match datatype {
        Datatype::Ipv4Addr => Value::V4(choices.u32().into()),
        Datatype::Ipv6Addr => {
            Value::V6([(); 4].map(|()| choices.u32()).iter().fold(0, |all, it| all << 32 | u128::from(*it)).into())
        }
        Datatype::EtherAddr => Value::Mac(Mac([(); 6].map(|()| choices.byte()))),
        _ => {
            let own = std::str::from_utf8(choices.bytes()).ok().and_then(|it| it.parse::<IfName>().ok());
            Value::IfName(own.unwrap_or_else(|| "tap0".parse().expect("a name")))
        }
    }
}

/// The list of elements in a request to add them is what the kernel answers when it is asked for them.
fn sent_and_read(choices: &mut Choices<'_>) {
    let all = sets();
    let set = &all[choices.below(all.len())];
    let element = Element {
        family: [TableFamily::Inet, TableFamily::Arp, TableFamily::Bridge][choices.below(3)],
        set: set.name.clone(),
        key: set.key.iter().map(|part| value(*part, choices)).collect(),
        data: set.data.map(|data| value(data, choices)),
        comment: (choices.below(2) == 1).then(|| Comment::new(&String::from_utf8_lossy(choices.rest()))),
    };
    let line = element.to_string();
    assert!(!line.contains(char::is_control), "{line:?}");
    let mut bytes = Vec::new();
    for request in encode::new_elements(&[&element]).expect("a request") {
        request.write(1, &mut bytes).expect("a message");
    }
    read(&bytes);
    let mut answers = answers(&bytes).expect("what we wrote");
    let Some((1, Answer::Object(object))) = answers.pop() else { panic!("{bytes:?}") };
    let mut stored = stored_elements(object.attributes());
    let stored = stored.pop().filter(|_| stored.is_empty()).expect("one element");
    assert_eq!(presence(&element, Some(&stored)), Presence::Present);
    assert_eq!(decode(element.family, set, stored), Some(element));
}

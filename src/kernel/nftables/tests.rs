//! Golden bytes beside the command that made them, and answers that are cut short or garbled.

use std::sync::Arc;

use super::*;
use crate::ruleset::{Chain, Comment, Field, Rule, Statement};
use golden::{counted, elements, name, tables, v4, v6};

mod golden;
mod host;
mod marks;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("two digits")).collect()
}

/// `request` as a line of golden.txt.
fn line(request: Request) -> String {
    let kind = uapi::operation(request.kind).trim_start_matches("NFT_MSG_").to_owned();
    let mut bytes = Vec::new();
    request.write(1, &mut bytes).expect("a message");
    let length = u32::from_ne_bytes(*bytes.first_chunk().expect("a header"));
    assert_eq!(usize::try_from(length).expect("a length"), bytes.len());
    let attributes: String = bytes[20..].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{kind} {:02x} {attributes}", bytes[16])
}

/// Lines of a file of this folder, without its comments.
fn lines(file: &str) -> impl Iterator<Item = &str> {
    file.lines().filter(|line| !line.starts_with('#'))
}

#[test]
fn displayed_it_is_what_nft_reads() {
    let tables: String = tables().iter().map(Group::to_string).collect();
    let elements: String = elements().iter().map(|element| format!("{element}\n")).collect();
    assert_eq!(tables + &elements, include_str!("tests/golden.nft"));
}

#[test]
#[cfg(target_endian = "little")]
fn the_messages_are_those_of_nft() {
    let tables = tables().map(Arc::new);
    let seen: Vec<_> = tables.iter().map(|it| base::SeenTable::nothing(it)).collect();
    let mut requests = base::completion(&tables, &seen).expect("messages").requests;
    let elements = elements();
    requests.extend(encode::new_elements(&elements.each_ref()).expect("messages"));
    let mut ours: Vec<_> = requests.into_iter().map(line).collect();
    let mut theirs: Vec<_> = lines(include_str!("tests/golden.txt")).collect();
    // nft has its own order of sets and chains; that of rules must be ours.
    let place = |line: &str| if line.starts_with("NEWRULE") { "NEWRULE".to_owned() } else { line.to_owned() };
    ours.sort_by_key(|line| place(line));
    theirs.sort_by_key(|line| place(line));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn many_elements_share_messages_that_fit() {
    let many: Vec<_> = (0..4000_u32)
        .map(|number| Element {
            key: vec![name(&format!("tap{number}")), Value::V4(number.into())],
            comment: Some(Comment::new(&"x".repeat(200))),
            ..elements()[2].clone()
        })
        .collect();
    let requests = encode::new_elements(&many.iter().collect::<Vec<_>>()).expect("messages");
    assert!(requests.len() < 20, "{} messages", requests.len());
    for request in requests {
        let mut bytes = Vec::new();
        request.write(1, &mut bytes).expect("a message");
        assert!(bytes.len() < usize::from(u16::MAX), "{} bytes", bytes.len());
    }
}

#[test]
fn what_no_packet_has_is_an_error() {
    let rule = |statement| Rule::from([statement]);
    for (family, statement, expected) in [
        (TableFamily::Arp, Statement::equal(Field::IpSaddr, v4("10.0.0.1")), "family arp"),
        (TableFamily::Inet, Statement::equal(Field::IpSaddr, v6("::1")), "type ipv4_addr"),
        (TableFamily::Inet, Statement::equal(Field::IpSaddr.masked(v6("::")), v4("10.0.0.1")), "type ipv4_addr"),
        (
            TableFamily::Inet,
            Statement::Write { field: Field::TcpDport, selectors: vec![Field::IifName.into()], map: "m".into() },
            "cannot be written",
        ),
        (
            TableFamily::Inet,
            Statement::WriteBits { field: Field::IpSaddr, mask: v4("255.0.0.0"), value: v4("10.0.0.0") },
            "in part",
        ),
    ] {
        let error = expression::expressions(family, &rule(statement)).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
#[cfg(target_endian = "little")]
fn answers_are_read() {
    let answers: Vec<_> = lines(include_str!("tests/answers.txt"))
        .flat_map(|line| message::answers(&hex(line)).expect("answers"))
        .collect();
    let objects = answers.iter().filter_map(|(_, answer)| match answer {
        Answer::Object(object) => Some(object.attributes()),
        _ => None,
    });
    let objects: Vec<_> = objects.collect();
    let mapped = query::stored_elements(objects[0]).pop();
    assert_eq!(query::presence(&elements()[0], mapped.as_ref()), Presence::Present);
    let different = Element { data: Some(v4("10.9.9.9")), ..elements()[0].clone() };
    assert_eq!(query::presence(&different, mapped.as_ref()), Presence::Different);
    let commented = query::stored_elements(objects[1]).pop();
    assert_eq!(query::presence(&elements()[2], commented.as_ref()), Presence::Present);
    let other = Element { comment: None, ..elements()[2].clone() };
    assert_eq!(query::presence(&other, commented.as_ref()), Presence::Different);
    assert_eq!(query::presence(&other, None), Presence::Absent);
    let [arp, inet, _] = tables();
    let dumped: Vec<_> = query::stored_elements(objects[2]);
    let decoded = dumped.into_iter().filter_map(|stored| query::decode(TableFamily::Inet, &inet.sets[1], stored));
    assert_eq!(decoded.collect::<Vec<_>>(), [elements()[2].clone()]);
    assert_eq!(objects[4].number(uapi::NFTA_GEN_ID), Some(2));
    base::check_set(TableFamily::Arp, &arp.sets[0], objects[5]).expect("our set");
    let error = base::check_set(TableFamily::Inet, &inet.sets[1], objects[5]).expect_err("another type").to_string();
    assert!(error.contains("expected: type ifname . ipv4_addr;"), "{error}");
    assert_eq!(base::seen_chain(&arp, &arp.chains[0], objects[6]), base::SeenChain::Complete);
    let other = |name, rules| Chain { name, hook: None, rules };
    let mut jumping = arp.clone();
    jumping.chains.push(other("jumper".into(), vec![[Statement::Jump("output".into())].into()]));
    assert_eq!(base::seen_chain(&jumping, &arp.chains[0], objects[6]), base::SeenChain::Different);
    let rules = arp.chains[0].rules.clone();
    assert_eq!(base::seen_chain(&arp, &other("output".into(), rules), objects[6]), base::SeenChain::Different);
    let counting = query::stored_elements(objects[7]);
    assert_eq!(query::presence(&elements()[7], counting.first()), Presence::Present, "whatever it counted");
    let drops = |object| {
        let stored = query::stored_elements(object).into_iter();
        let drops = stored.filter_map(|stored| query::drops(TableFamily::Bridge, &counted(), stored));
        drops.map(|it| (it.interface.to_string(), it.packets, it.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(drops(objects[7]), [("tap0".to_owned(), 3, 252), ("tap1".to_owned(), 0, 0)]);
    assert_eq!(drops(objects[8]), [("tap0".to_owned(), 7, 588)]);
    assert_eq!(drops(objects[2]), [], "of elements that do not count");
    let refused = answers.iter().find_map(|(_, answer)| match answer {
        Answer::Refused(refusal) => Some(refusal),
        _ => None,
    });
    let refused = refused.expect("a refusal");
    assert_eq!((refused.family, refused.error.errno), (1, ENOENT));
    assert_eq!(refused.error.to_string(), "NFT_MSG_GETSETELEM: No such file or directory (os error 2)");
}

#[test]
fn a_refusal_says_what_is_missing() {
    let explain = |operation, errno, family| {
        let error = Error { operation, errno, text: None };
        format!("{:#}", Refusal { error, family }.explain())
    };
    assert_eq!(
        explain("NFT_MSG_NEWCHAIN", ENOENT, 3),
        "expected a kernel with CONFIG_NF_TABLES_ARP: \
         NFT_MSG_NEWCHAIN: No such file or directory (os error 2)"
    );
    assert!(explain("NFT_MSG_NEWTABLE", nix::libc::EAFNOSUPPORT, 1).contains("CONFIG_NF_TABLES_INET"));
    assert!(explain("NFT_MSG_NEWCHAIN", nix::libc::EOPNOTSUPP, 7).contains("CONFIG_NF_TABLES_BRIDGE"));
    assert!(explain("NFT_MSG_GETGEN", nix::libc::EINVAL, 0).contains("CONFIG_NF_TABLES:"));
    assert!(explain("NFT_MSG_GETGEN", nix::libc::EPERM, 0).contains("CAP_NET_ADMIN"));
}

/// Xorshift (Marsaglia 2003): the same numbers in each run.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).expect("31 bits")
}

#[test]
fn garbled_answers_do_no_harm() {
    let [arp, inet, _] = tables();
    let originals: Vec<_> = lines(include_str!("tests/answers.txt")).map(hex).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..20_000 {
        let mut bytes = originals[random(&mut state) % originals.len()].clone();
        for _ in 0..=random(&mut state) % 4 {
            let at = random(&mut state) % bytes.len();
            bytes[at] = [0, 1, 3, 4, 0x7f, 0x80, 0xff, bytes[at].wrapping_add(1)][random(&mut state) % 8];
        }
        if random(&mut state).is_multiple_of(3) {
            bytes.truncate(random(&mut state) % bytes.len());
        }
        for (_, answer) in message::answers(&bytes).unwrap_or_default() {
            match answer {
                Answer::Object(object) => {
                    let attributes = object.attributes();
                    for stored in query::stored_elements(attributes) {
                        query::presence(&elements()[0], Some(&stored));
                        query::drops(TableFamily::Inet, &counted(), stored.clone());
                        query::decode(TableFamily::Inet, &inet.sets[1], stored);
                    }
                    let _ = base::check_set(TableFamily::Arp, &arp.sets[0], attributes);
                    base::seen_chain(&arp, &arp.chains[0], attributes);
                }
                Answer::Refused(refusal) => drop(refusal.explain().to_string()),
                Answer::Done | Answer::Acknowledged => {}
            }
        }
    }
}

#[test]
fn each_key_is_changed_once_and_adding_wins() {
    let [mapped, guarded, ..] = elements();
    let add = [mapped.clone(), mapped.clone()];
    let remove = [Element { data: None, ..mapped.clone() }, guarded.clone(), guarded.clone()];
    let change = Transaction { add: add.iter().collect(), remove: remove.iter().collect(), ..Transaction::default() };
    assert_eq!(consolidate(&change).expect("a change"), (vec![&mapped], vec![&guarded]));
    let add = [mapped.clone(), Element { data: Some(v4("10.9.9.9")), ..mapped }];
    let change = Transaction { add: add.iter().collect(), ..Transaction::default() };
    assert!(consolidate(&change).is_err());
}

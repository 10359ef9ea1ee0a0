//! What name servers answer, and the files that say which they are and who we are.

use domain::base::{Message, Rtype};

use super::key::Key;
use super::message::{Answer, alias, answer_section, authority_section, check_answers, query};
use super::records::host_name;
use super::resolve::{Resolver, in_hosts};
use super::server::Server;
use crate::fuzzed::check_error;

/// A message in answer to our question for an address.
pub(crate) fn answer(bytes: &[u8]) {
    let Ok(message): Result<Answer, _> = Message::from_octets(bytes.to_vec()) else { return };
    let name = host_name("vm1.example.org", None).expect("a name");
    let mut request = query(&name, Rtype::AAAA, true).expect("a question");
    request.header_mut().set_id(message.header().id());
    if let Err(error) = check_answers(&message, &request) {
        check_error(&error);
    }
    for section in [answer_section(&message), authority_section(&message)] {
        match section {
            Err(error) => check_error(&error),
            Ok(found) => {
                assert!(found.len() <= bytes.len() / 11, "a record has eleven bytes at least");
                alias(&found, &name);
                for one in &found {
                    assert!(!format!("{one:?} {}", one.owner).contains('\n'));
                }
            }
        }
    }
    // Our own question belongs to every answer of the same number, and is none.
    assert!(
        check_answers(&Message::from_octets(request.as_message().as_slice().to_vec()).expect("ours"), &request)
            .is_err()
    );
}

/// SERVER, /etc/hosts and /etc/resolv.conf.
pub(crate) fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Server::parse_list(&text) {
        Err(error) => check_error(&error),
        Ok(servers) => {
            let list: Vec<_> = servers.iter().map(ToString::to_string).collect();
            assert_eq!(Server::parse_list(&list.join(" ")).expect("what we wrote"), servers);
        }
    }
    in_hosts(&text, "vm1");
    let resolver = Resolver::parse(&text);
    assert!(!resolver.servers.is_empty());
    for host in ["vm1", "vm1.example.org", "vm1.", text.lines().next().unwrap_or_default()] {
        match resolver.candidates(host) {
            Err(error) => check_error(&error),
            Ok(names) => assert!(!names.is_empty()),
        }
    }
}

/// A key file, or the two of a pair with a NUL between them. No error shows the secret.
pub(crate) fn key_file(bytes: &[u8]) {
    const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQ=";
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = match text.split_once('\0') {
        Some((record, private)) => Key::parse_pair(record, private),
        None => Key::parse_clause(text),
    };
    match parsed {
        Err(error) => {
            check_error(&error);
            // As the name of a key or of an algorithm, it is no secret.
            let in_place =
                [": ", "secret ", "secret \"", "163 "].map(|before| text.matches(&format!("{before}{SECRET}")).count());
            let misplaced = text.matches(SECRET).count() > in_place.iter().sum();
            assert!(misplaced || !format!("{error:#}").contains(SECRET), "{error:#}");
        }
        Ok(Key(key)) => assert!(key.signing_len() >= 10 && key.signing_len() <= 64, "{}", key.signing_len()),
    }
}

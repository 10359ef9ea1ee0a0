//! The reader of answers: whole, in pieces, truncated, hostile.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use super::*;
use crate::object::{OvsPort, OvsVlans};

/// A server that says these bytes, a few at a time, and keeps what it is told.
struct Script {
    says: Vec<u8>,
    at: usize,
    step: usize,
    told: Vec<u8>,
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.step.min(buffer.len()).min(self.says.len() - self.at);
        buffer[..length].copy_from_slice(&self.says[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.told.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn server(says: &[u8], step: usize) -> BufReader<Script> {
    BufReader::new(Script { says: says.to_vec(), at: 0, step, told: Vec::new() })
}

fn of(says: &str) -> Result<Vec<Value>> {
    answer(&mut server(says.as_bytes(), 7), 1)
}

const ECHO: &str = r#"{"id":"echo","method":"echo","params":[]}"#;
const UPDATE: &str = r#"{"id":null,"method":"update","params":[null,{}]}"#;
const ANSWER: &str =
    r#"{"id":1,"result":[{"rows":[{"name":"a}\"{","trunks":["set",[5,6]],"tag":7}]},{}],"error":null}"#;
/// A port and its interface, as ovsdb-server 3.1 tells them.
const PORT: &str = r#"{"id":1,"result":[{"rows":[{"_uuid":["uuid","c8e698f1-c8d0-40b1-a416-fb723fd45b57"],
    "interfaces":["uuid","0ad29ea5-2c9d-450b-8582-e8f780a519a5"],"tag":10,"trunks":["set",[30,20]],
    "vlan_mode":"native-untagged","other_config":["map",[]]}]},{"rows":[{"_uuid":["uuid","0ad29ea5-2c9d-450b-8582-e8f780a519a5"],"ofport":2,
    "external_ids":["map",[["owner","snf-network"]]],"type":"","error":["set",[]]}]}],"error":null}"#;

#[test]
fn a_port_is_read() {
    let results = of(PORT).expect("an answer");
    let row = |result: usize| &results[result]["rows"][0];
    let state = port::port_of(row(0), Some(row(1))).expect("a port");
    assert_eq!((state.vlans.mode.as_deref(), state.vlans.tag), (Some("native-untagged"), Some(10)));
    assert_eq!((state.vlans.trunks.as_slice(), state.plain), (&[20, 30][..], true));
    assert_eq!((state.ofport, state.error), (Some(2), None));
    assert!(!state.out_of_spanning_tree);
    assert_eq!(state.external_ids, [("owner".to_owned(), "snf-network".to_owned())]);
    // The interface of this name is another port's.
    let mut bond = row(0).clone();
    bond["interfaces"] = json!(["set", [["uuid", "x"], ["uuid", "y"]]]);
    assert!(!port::port_of(&bond, Some(row(1))).expect("a port").plain);
    assert!(!port::port_of(row(0), None).expect("a port").plain);
    for (column, bad) in [("tag", json!(70000)), ("tag", json!("x")), ("trunks", json!(null)), ("vlan_mode", json!(5))]
    {
        let mut port = row(0).clone();
        port[column] = bad;
        assert!(port::port_of(&port, None).is_err(), "{column}");
    }
}

#[test]
fn answers_are_found_among_what_else_the_server_says() {
    for step in [1, 2, 3, 1000] {
        let mut server = server(format!("{UPDATE}\n {ECHO}{ANSWER}{ANSWER}").as_bytes(), step);
        for _ in 0..2 {
            let results = answer(&mut server, 1).expect("an answer");
            assert_eq!(results.len(), 2);
            assert_eq!(results[0]["rows"][0]["name"], "a}\"{");
        }
        let told = String::from_utf8(server.get_ref().told.clone()).expect("UTF-8");
        assert_eq!(told, r#"{"error":null,"id":"echo","result":[]}"#);
    }
}

#[test]
fn refusals_are_in_ovsdbs_own_words() {
    let refused = |results: &str, expected| {
        let answer = of(&format!(r#"{{"id":1,"error":null,"result":{results}}}"#)).expect("an answer");
        format!("{:#}", super::results(answer, expected).expect_err("a refusal"))
    };
    let timed_out = r#"[{},{"error":"timed out","details":"\"wait\" timed out after 5 ms"},null]"#;
    assert_eq!(refused(timed_out, 3), "timed out: \"wait\" timed out after 5 ms");
    // What fails only in the end comes behind the results of all operations.
    assert_eq!(refused(r#"[{},{"error":"constraint violation"}]"#, 1), "constraint violation");
    assert_eq!(refused("[{\"error\":\"a\\u001b[2J\\n\"}]", 1), r#""a\u{1b}[2J\n""#);
    assert_eq!(refused(r#"[{"error":5}]"#, 1), "5");
    assert_eq!(refused("[{}]", 2), "1 results: expected 2");
    assert_eq!(refused("[{},null]", 2), "1 results: expected 2");
    assert_eq!(refused("[{},{}]", 1), "2 results: expected 1");
    let whole = r#"{"id":1,"result":null,"error":{"error":"unknown database","details":"no database named x"}}"#;
    assert_eq!(format!("{:#}", of(whole).expect_err("a refusal")), "unknown database: no database named x");
    assert_eq!(format!("{:#}", of(r#"{"id":1,"error":"unknown method"}"#).expect_err("it")), "unknown method");
}

#[test]
fn what_is_no_answer_is_an_error() {
    let deep = format!("{{\"id\":{}", "[".repeat(100_000));
    let long = format!("{{\"id\":1,\"x\":\"{}\"}}", "x".repeat(LONGEST as usize));
    for (says, expected) in [
        ("", "answer: failed to fill whole buffer"),
        ("   \n", "answer: failed to fill whole buffer"),
        ("{", "answer: ends early"),
        ("HTTP/1.1 400 Bad Request", r#"answer that begins with "H": expected a JSON object"#),
        ("\x1b[2J", r#"answer that begins with "\x1b": expected a JSON object"#),
        ("[1]", r#"answer that begins with "[""#),
        ("{x", "answer: expected JSON"),
        ("{}", r#"answer to request "null": expected 1"#),
        (r#"{"id":2,"result":[],"error":null}"#, r#"answer to request "2": expected 1"#),
        (r#"{"id":"1","result":[],"error":null}"#, r#"answer to request "\"1\"": expected 1"#),
        (r#"{"id":1,"error":null}"#, r#"result "null": expected an array"#),
        (r#"{"id":1,"result":{},"error":null}"#, r#"result "{}": expected an array"#),
        (&*deep, "recursion limit exceeded"),
        (&*long, "is longer than 1048576 bytes"),
    ] {
        let error = format!("{:#}", of(says).expect_err(expected));
        assert!(error.contains(expected) && error.len() < 300, "{error}, not {expected}");
    }
}

#[test]
fn every_truncation_is_an_error_and_mutations_are_survived() {
    let good = format!("{ECHO}{PORT}");
    for length in 0..good.len() {
        assert!(of(&good[..length]).is_err(), "{length} bytes");
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let (mut understood, mut ports) = (0, 0);
    for _ in 0..10_000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=random(3) {
            let place = random(bytes.len());
            match random(4) {
                0 => bytes[place] ^= 1 << random(8),
                1 => bytes.truncate(place + 1),
                2 => bytes.insert(place, random(256) as u8),
                _ => drop(bytes.remove(place)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        match answer(&mut server(&bytes, 64), 1).and_then(|it| results(it, 2)) {
            Ok(results) => {
                understood += 1;
                let row = |result: &Value| value::rows(result).ok().and_then(|rows| rows.first().cloned());
                if let (Some(port), interface) = (row(&results[0]), row(&results[1])) {
                    ports += usize::from(port::port_of(&port, interface.as_ref()).is_ok());
                }
            }
            Err(error) => assert!(is_printable(&format!("{error:#}")), "{error:#}"),
        }
    }
    assert!((100..9_900).contains(&understood), "{understood} of 10000: both ways must be tried");
    assert!((100..understood).contains(&ports), "{ports} ports of {understood}: both ways must be tried");
}

#[test]
fn columns_are_read_in_each_of_their_forms() {
    assert_eq!(value::set(&json!(["set", [1, 2]])).expect("a set").len(), 2);
    assert_eq!(value::set(&json!(["set", []])).expect("a set").len(), 0);
    assert_eq!(value::set(&json!(5)).expect("one"), [&json!(5)]);
    assert_eq!(value::set(&json!(["uuid", "x"])).expect("one"), [&json!(["uuid", "x"])]);
    assert_eq!(value::uuid(&json!(["uuid", "x"])).expect("it"), "x");
    assert_eq!(value::map(&json!(["map", [["a", "b"]]])).expect("it"), [("a".to_owned(), "b".to_owned())]);
    for bad in [json!(["set", 5]), json!(["set", [1, 2]])] {
        assert!(value::optional(&bad).is_err(), "{bad}");
    }
    for bad in [json!(null), json!([]), json!(["uuid"]), json!(["uuid", 5]), json!("x"), json!(["map", []])] {
        assert!(value::uuid(&bad).is_err(), "{bad}");
    }
    for bad in [json!(null), json!(["map"]), json!(["map", [["a"]]]), json!(["map", [["a", 5]]]), json!(["map", 5])] {
        assert!(value::map(&bad).is_err(), "{bad}");
    }
    assert!(value::rows(&json!({})).is_err() && value::rows(&json!({ "rows": 5 })).is_err());
}

/// A server that gives these results, one after the other, and then what it was asked.
fn scripted(name: &str, script: Vec<Value>) -> (PathBuf, JoinHandle<Vec<Value>>) {
    let socket = std::env::temp_dir().join(format!("snf-network-ovsdb-{name}-{}", std::process::id()));
    let listener = UnixListener::bind(&socket).expect("a socket");
    let serve = move || {
        let mut stream = BufReader::new(listener.accept().expect("a connection").0);
        let mut asked = Vec::new();
        for result in script {
            let mut request = message(&mut stream).expect("a request");
            let answer = json!({ "id": request["id"], "result": result, "error": null }).to_string();
            stream.get_mut().write_all(answer.as_bytes()).expect("answered");
            asked.push(request["params"].take());
        }
        asked
    };
    (socket, thread::spawn(serve))
}

fn tap0(socket: &Path) -> OvsPort {
    OvsPort {
        socket: socket.to_owned(),
        name: "tap0".parse().expect("a name"),
        bridge: "br0".parse().expect("a name"),
        vlans: OvsVlans { mode: Some("access".to_owned()), tag: Some(10), trunks: Vec::new() },
        external_ids: vec![(OvsPort::OWNER, "snf-network".to_owned()), (OvsPort::IFINDEX, "7".to_owned())],
    }
}

/// Makes the port stand where the server answers so; how it ends, and what the server was asked.
fn ensured(name: &str, script: Vec<Value>) -> (Result<()>, Vec<Value>) {
    let (socket, server) = scripted(name, script);
    let done = port::ensure(&tap0(&socket));
    std::fs::remove_file(socket).expect("removed");
    (done, server.join().expect("a script played to its end"))
}

#[test]
fn a_change_holds_only_while_the_port_is_as_it_was_read() {
    let bridge = json!([{ "rows": [{ "_uuid": ["uuid", "b"] }] }]);
    let nothing = json!([{ "rows": [] }, { "rows": [] }]);
    let refused = json!([{ "error": "timed out", "details": "\"wait\" timed out after 0 ms" }, null, null]);
    let (done, asked) = ensured("race", vec![bridge, nothing, refused]);
    let error = format!("{:#}", done.expect_err("somebody else was faster"));
    assert_eq!(error, "OVSDB: somebody else changed port tap0 meanwhile");
    let first = &asked[2][1];
    assert_eq!((&first["op"], &first["rows"], &first["timeout"]), (&json!("wait"), &json!([]), &json!(0)));
}

#[test]
fn what_the_switch_says_of_a_port_is_the_error() {
    let bridge = json!([{ "rows": [{ "_uuid": ["uuid", "b"] }] }]);
    let holder = json!([{ "rows": [{ "name": "br0" }] }]);
    let standing = |ofport: Value, error: Value, tag: u16| {
        json!([
            { "rows": [{ "_uuid": ["uuid", "p"], "interfaces": ["uuid", "i"], "vlan_mode": "access", "tag": tag,
                "trunks": ["set", []],
                "other_config": ["map", [["stp-enable", "false"], ["rstp-enable", "false"]]] }] },
            { "rows": [{ "_uuid": ["uuid", "i"], "type": "", "ofport": ofport, "error": error,
                "external_ids": ["map", [["owner", "snf-network"], ["tap-ifindex", "7"]]] }] },
        ])
    };
    let none = || json!(["set", []]);
    let changed =
        json!([{}, { "count": 1 }, {}, {}, { "count": 1 }, {}, { "count": 1 }, { "rows": [{ "next_cfg": 5 }] }]);
    for (name, ofport, error, expected) in [
        (
            "error",
            json!(-1),
            json!("could not open network device tap0"),
            "ovs-vswitchd: could not open network device tap0",
        ),
        ("number", none(), none(), "ovs-vswitchd has given it no number (ofport)"),
    ] {
        let before = standing(json!(3), none(), 20);
        let after = standing(ofport, error, 10);
        let script = vec![bridge.clone(), before, holder.clone(), changed.clone(), json!([{}]), after, holder.clone()];
        let (done, asked) = ensured(name, script);
        assert_eq!(format!("{:#}", done.expect_err(expected)), expected);
        // In one transaction the old one goes and the new one comes, and then the switch is waited for.
        let operations: Vec<_> = asked[3].as_array().expect("operations")[1..].iter().map(|it| &it["op"]).collect();
        assert_eq!(operations, ["wait", "mutate", "insert", "insert", "mutate", "comment", "mutate", "select"]);
        assert_eq!(asked[4][1]["where"], json!([["cur_cfg", "<", 5]]));
    }
    // What stands as wanted is left alone.
    let (done, _) = ensured("again", vec![bridge, standing(json!(3), none(), 10), holder]);
    done.expect("nothing to do");
}

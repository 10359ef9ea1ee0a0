use super::*;

#[test]
fn masks_are_printed_as_prefixes_where_they_are_such() {
    let v4 = |text: &str| Value::V4(text.parse().expect("an address"));
    for (selector, value, expected) in [
        (Field::IpSaddr.masked(Value::prefix4(20)), "10.0.31.1", "ip saddr 10.0.16.0/20"),
        (Field::IpSaddr.masked(Value::prefix4(32)), "10.0.0.1", "ip saddr 10.0.0.1/32"),
        (Field::IpSaddr.masked(Value::prefix4(0)), "10.0.0.1", "ip saddr 0.0.0.0/0"),
        (Field::IpSaddr.masked(v4("255.0.0.255")), "10.1.1.1", "ip saddr & 255.0.0.255 == 10.0.0.1"),
    ] {
        assert_eq!(Statement::equal(selector, v4(value)).to_string(), expected);
    }
    assert_eq!(Value::prefix6(64).to_string(), "ffff:ffff:ffff:ffff::");
    assert_eq!(Value::prefix6(200).prefix_length(), Some(128));
}

#[test]
fn elements_are_lines_for_nft() {
    let element = Element {
        family: TableFamily::Arp,
        set: "arp_source".into(),
        key: vec![Value::IfName("tap0".parse().expect("a name"))],
        data: Some(Value::V4([10, 0, 0, 1].into())),
        comment: Some(Comment::new("a \"guest\"\n\\")),
    };
    let added = r#"add element arp snf-network arp_source { "tap0" comment "a _guest___" : 10.0.0.1 }"#;
    assert_eq!(element.to_string(), added);
    assert_eq!(element.deletion().to_string(), r#"delete element arp snf-network arp_source { "tap0" }"#);
    assert_eq!(Comment::new(&"é".repeat(500)).as_str(), "_".repeat(Comment::MAX));
}

#[test]
fn another_rule_is_another_fingerprint() {
    let chain = |statement| Chain { name: "c".into(), hook: None, rules: vec![[Statement::Counter, statement].into()] };
    let table = Group { family: TableFamily::Inet, sets: vec![], chains: vec![chain(Statement::Jump("c".into()))] };
    assert_ne!(chain(Statement::Drop).fingerprint(), chain(Statement::Accept).fingerprint());
    assert_eq!(table.references(&table.chains[0]), 2);
}

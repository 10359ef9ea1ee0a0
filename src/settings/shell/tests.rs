//! What the shell makes of assignments, and what is refused.

use super::*;

fn read(text: &str) -> Result<Vec<(String, String)>> {
    let mut variables = Assignments::default();
    variables.read(text.as_bytes(), "FILE")?;
    Ok(variables.0.into_iter().map(|a| (a.key, a.value)).collect())
}

#[test]
fn assignments_have_the_values_that_sh_gives_them() {
    for (text, expected) in [
        ("", vec![]),
        ("\n  # A=b\n\t\n", vec![]),
        ("A=b", vec![("A", "b")]),
        ("  A=b\t # c\nB=c#d", vec![("A", "b"), ("B", "c#d")]),
        ("A=", vec![("A", "")]),
        ("A=b C=d", vec![("A", "b"), ("C", "d")]),
        ("A='b $c \"d\" \\'", vec![("A", "b $c \"d\" \\")]),
        ("A=\"b 'c' \\\" \\$ \\x\"", vec![("A", "b 'c' \" $ \\x")]),
        ("A=b'c d'\"e f\"\\ g", vec![("A", "bc de f g")]),
        ("A='b\nc'", vec![("A", "b\nc")]),
        ("A=b\\\nc \\\n B=d", vec![("A", "bc"), ("B", "d")]),
        ("A=b\nB=$A/c\nC=\"${A}x\"\nD='$A'", vec![("A", "b"), ("B", "b/c"), ("C", "bx"), ("D", "$A")]),
        ("A=b\nA=$A$A", vec![("A", "bb")]),
        ("A=${B:-c d}", vec![("A", "c d")]),
        ("B=\nA=${B:-c}${B-d}", vec![("B", ""), ("A", "c")]),
        ("A=${B:-${C:-'}'}}", vec![("A", "}")]),
        ("A=\"${B:-'c'}\"", vec![("A", "'c'")]),
        (": ${A:=b}", vec![("A", "b")]),
        (": \"${A:=b c}\"", vec![("A", "b c")]),
        ("A=x\n: ${A:=b} ${C:=\"d e\"}", vec![("A", "x"), ("C", "d e")]),
        (": ${A:=}\n:\n: nothing", vec![("A", "")]),
        ("export A=b C='d'\nexport A\nexport", vec![("A", "b"), ("C", "d")]),
        ("A='#1' # 2", vec![("A", "#1")]),
        ("A=*", vec![("A", "*")]),
        // A word that is not needed is not expanded, nor are keys set in it.
        ("A=x\n: ${A:=${D=z}}${A:-$NONE}", vec![("A", "x")]),
        ("A=\nB=${A:-${D=z}}${A-${E=z}}", vec![("A", ""), ("D", "z"), ("B", "z")]),
        // A continued line goes on with the word before it.
        ("export A\\\nB=c", vec![("AB", "c")]),
        ("A\\\nB=c", vec![("AB", "c")]),
        ("export A\\\n B=c", vec![("B", "c")]),
        ("exp\\\nort A=b\n:\\\n ${B:=c}", vec![("A", "b"), ("B", "c")]),
        (
            "A=b~ B=\\~ C='~' D=\"~ x:~\" E=b\\:~",
            vec![("A", "b~"), ("B", "~"), ("C", "~"), ("D", "~ x:~"), ("E", "b:~")],
        ),
    ] {
        let found = read(text).unwrap_or_else(|e| panic!("{text:?}: {e:#}"));
        let expected: Vec<_> = expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(found, expected, "{text:?}");
    }
}

#[test]
fn anything_else_is_an_error_with_its_place() {
    const COMMAND: &str =
        "commands are never run, expected KEY=value, export KEY=value, : ${KEY:=value} or a # comment";
    const HOME: &str = "expected no ~, which stands for a home, or quotes around it";
    let quotes = format!("{COMMAND}, or quotes around the value");
    for (text, expected) in [
        ("A=b\nA=$(id)", "FILE:2: \"$(id)\": commands are never run, expected $KEY or ${KEY}".to_owned()),
        ("A=`id`", "FILE:1: \"`id`\": commands are never run, expected text".to_owned()),
        ("A=\"`id`\"", "FILE:1: \"`id`\\\"\": commands are never run, expected text".to_owned()),
        ("A=b;", format!("FILE:1: \";\": {quotes}")),
        ("A=b && c", format!("FILE:1: \"A=b && c\": {COMMAND}")),
        ("A=b|c", format!("FILE:1: \"|c\": {quotes}")),
        ("A=(b c)", format!("FILE:1: \"(b c)\": {quotes}")),
        ("if true\nthen", format!("FILE:1: \"if true\": {COMMAND}")),
        ("A = b", format!("FILE:1: \"A = b\": {COMMAND}")),
        ("A=b c", format!("FILE:1: \"A=b c\": {COMMAND}")),
        ("A+=b", format!("FILE:1: \"A+=b\": {COMMAND}")),
        ("1A=b", format!("FILE:1: \"1A=b\": {COMMAND}")),
        (". /etc/x", format!("FILE:1: \". /etc/x\": {COMMAND}")),
        ("export -n A", format!("FILE:1: \"export -n A\": {COMMAND}")),
        ("readonly A=b", format!("FILE:1: \"readonly A=b\": {COMMAND}")),
        ("A=b\r\n", "FILE:1: \"b\\r\": expected no control characters".to_owned()),
        ("A='\0'", "FILE:1: \"'\\0'\": expected no control characters".to_owned()),
        ("\nA='b\n", "FILE:2: \"'b\": expected a closing single quote".to_owned()),
        ("A=\"b\n\n", "FILE:1: \"b\": expected a closing double quote".to_owned()),
        ("A=${B:-c", "FILE:1: \"c\": expected a closing brace".to_owned()),
        ("A=b\\", "FILE:1: \"\\\\\": expected a character after the backslash".to_owned()),
        ("A=b\nA=$A\\\nc", "FILE:2: \"$A\\\\\": the name goes on in the next line, expected ${KEY}".to_owned()),
        ("A=~/b", format!("FILE:1: \"~/b\": {HOME}")),
        ("A=\\\n~", format!("FILE:2: \"~\": {HOME}")),
        ("A=b:~", format!("FILE:1: \"~\": {HOME}")),
        ("export A=~", format!("FILE:1: \"~\": {HOME}")),
        (": ${A:=~}", format!("FILE:1: \"~}}\": {HOME}")),
        ("export\\\nA=b c", format!("FILE:1: \"export\\\\\": {COMMAND}")),
        (":\\\nA=b", format!("FILE:1: \":\\\\\": {COMMAND}")),
        ("export A\\b", format!("FILE:1: \"export A\\\\b\": {COMMAND}")),
        ("A=$B", "FILE:1: \"$B\": B is not set, expected a key set above".to_owned()),
        ("A=${B}", "FILE:1: \"${B}\": B is not set, expected a key set above".to_owned()),
        ("A=${B%x}", "FILE:1: \"${B%x}\": expected ${KEY}, ${KEY:-default} or ${KEY:=value}".to_owned()),
        (
            "A=$1",
            "FILE:1: \"$1\": expected $KEY or ${KEY} of a key set above, or \\$ for the character itself".to_owned(),
        ),
    ] {
        let error = read(text).map_or_else(|e| format!("{e:#}"), |found| format!("{found:?}"));
        assert_eq!(error, expected, "{text:?}");
    }
    let mut variables = Assignments::default();
    let error = variables.read(b"# \xe1 comment in any encoding\nA=\xe1\n", "FILE").expect_err("not UTF-8");
    assert_eq!(error.to_string(), "FILE:2: \"\u{fffd}\": expected UTF-8");
}

#[test]
fn neither_length_nor_depth_grows_without_limit() {
    let doubling = "A=xxxxxxxx\n".to_owned() + &"A=$A$A\n".repeat(60);
    let error = read(&doubling).expect_err("too long").to_string();
    assert_eq!(error, "FILE:11: \"$A$A\": expected a value of at most 4096 bytes");
    let deep = "A=".to_owned() + &"${B:-".repeat(5000) + &"}".repeat(5000);
    let error = read(&deep).expect_err("too deep").to_string();
    assert!(error.ends_with(": expected at most 8 braces in one another"), "{error}");
}

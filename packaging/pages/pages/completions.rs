//! Completions of bash, zsh and fish, from the table of commands: the words and options that usage lines and `--help` name.

use std::fmt::Write as _;

use snf_network::commands::{COMMANDS, Command};

/// What may stand behind a command.
struct Completed {
    name: &'static str,
    summary: &'static str,
    /// Words such as `up` and `down`.
    words: Vec<&'static str>,
    options: Vec<Opt>,
    /// Whether it takes the name of an interface.
    interface: bool,
}

/// An option.
struct Opt {
    /// With its dashes.
    flag: &'static str,
    value: Option<Value>,
    meaning: &'static str,
}

/// What comes behind an option.
enum Value {
    Interface,
    OneOf(Vec<&'static str>),
    Other(&'static str),
}

impl Value {
    fn of(word: &'static str) -> Self {
        match word.trim_end_matches("...") {
            "DEV" | "TAP" | "DEVICE" => Self::Interface,
            other if is_choice(other) => Self::OneOf(other.split('|').collect()),
            other => Self::Other(other),
        }
    }
}

fn is_choice(word: &str) -> bool {
    word.contains('|') && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'|')
}

fn completed(command: &Command) -> Completed {
    let mut found = Completed {
        name: command.names[0],
        summary: command.summary,
        words: Vec::new(),
        options: Vec::new(),
        interface: false,
    };
    let mut arguments = command.arguments.split([' ', '[', ']']).filter(|it| !it.is_empty()).peekable();
    while let Some(word) = arguments.next() {
        if word.starts_with('-') {
            let value =
                arguments.next_if(|next| next.chars().all(|c| c.is_ascii_uppercase()) && !is_last(command, next));
            found.options.push(Opt { flag: word, value: value.map(Value::of), meaning: "" });
        } else if is_choice(word) {
            found.words = word.split('|').collect();
        } else if matches!(Value::of(word), Value::Interface) {
            found.interface = true;
        }
    }
    for line in command.help().unwrap_or_default().lines().filter(|line| line.starts_with("  --")) {
        let (usage, meaning) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
        let (flag, value) = usage.split_once(' ').map_or((usage, None), |(flag, value)| (flag, Some(value)));
        found.options.push(Opt { flag, value: value.map(Value::of), meaning: meaning.trim() });
    }
    found
}

/// Whether a word ends the usage line: then it is an operand, whatever is before it.
fn is_last(command: &Command, word: &str) -> bool {
    command.arguments.ends_with(&format!(" {word}"))
}

fn all() -> impl Iterator<Item = Completed> {
    COMMANDS.iter().map(completed)
}

/// For /usr/share/bash-completion/completions.
pub fn bash() -> String {
    let names = all().map(|it| it.name).collect::<Vec<_>>().join(" ");
    let (mut values, mut words) = (String::new(), String::new());
    for command in all() {
        for option in &command.options {
            let Some(value) = &option.value else { continue };
            let list = match value {
                Value::Interface => "$interfaces".to_owned(),
                Value::OneOf(words) => words.join(" "),
                Value::Other(_) => String::new(),
            };
            let _ = writeln!(values, "    '{} {}') words=\"{list}\" ;;", command.name, option.flag);
        }
        let mut list: Vec<_> = command.words.iter().copied().chain(command.options.iter().map(|it| it.flag)).collect();
        if command.interface {
            list.push("$interfaces");
        }
        if !list.is_empty() {
            let _ = writeln!(words, "    '{} '*) words=\"{}\" ;;", command.name, list.join(" "));
        }
    }
    format!(
        "# Completions of snf-network for bash.\n\
         _snf_network() {{\n  \
           local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words='' interfaces\n  \
           interfaces=$(ls /sys/class/net)\n  \
           if [ \"$COMP_CWORD\" -eq 1 ]; then\n    words='{names}'\n  else\n    \
           case \"${{COMP_WORDS[1]}} $before\" in\n{values}{words}    esac\n  fi\n  \
           mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n\
         }}\n\
         complete -F _snf_network snf-network\n"
    )
}

/// For /usr/share/zsh/vendor-completions.
pub fn zsh() -> String {
    let mut text =
        String::from("#compdef snf-network\n# Completions of snf-network for zsh.\nlocal -a commands\ncommands=(\n");
    for command in all() {
        let _ = writeln!(text, "  {}", single_quoted(&format!("{}:{}", command.name, command.summary)));
    }
    text += ")\nif (( CURRENT == 2 )); then\n  _describe -t commands command commands\n  return\nfi\n\
             shift words\n(( CURRENT-- ))\ncase $words[1] in\n";
    for command in all() {
        let mut specs: Vec<String> = Vec::new();
        if !command.words.is_empty() {
            specs.push(format!("1:word:({})", command.words.join(" ")));
        }
        if command.interface {
            specs.push("*:interface:_net_interfaces".to_owned());
        }
        for option in &command.options {
            let meaning = option.meaning.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
            let value = match &option.value {
                None => String::new(),
                Some(Value::Interface) => ":interface:_net_interfaces".to_owned(),
                Some(Value::OneOf(words)) => format!(":value:({})", words.join(" ")),
                Some(Value::Other(name)) => format!(":{name}: "),
            };
            specs.push(format!("*{}[{meaning}]{value}", option.flag));
        }
        if !specs.is_empty() {
            let specs = specs.iter().map(|spec| single_quoted(spec)).collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "  {}) _arguments {specs} ;;", command.name);
        }
    }
    text + "esac\n"
}

/// For /usr/share/fish/vendor_completions.d.
pub fn fish() -> String {
    let mut text = String::from("# Completions of snf-network for fish.\ncomplete -c snf-network -f\n");
    for command in all() {
        let summary = single_quoted(command.summary);
        let _ = writeln!(text, "complete -c snf-network -n __fish_use_subcommand -a {} -d {summary}", command.name);
    }
    for command in all() {
        let behind = format!("complete -c snf-network -n '__fish_seen_subcommand_from {}'", command.name);
        if !command.words.is_empty() {
            let _ = writeln!(text, "{behind} -a '{}'", command.words.join(" "));
        }
        if command.interface {
            let _ = writeln!(text, "{behind} -a '(__fish_print_interfaces)'");
        }
        for option in &command.options {
            let flag = match option.flag.strip_prefix("--") {
                Some(long) => format!("-l {long}"),
                None => format!("-s {}", option.flag.trim_start_matches('-')),
            };
            let value = match &option.value {
                None => String::new(),
                Some(Value::Interface) => " -x -a '(__fish_print_interfaces)'".to_owned(),
                Some(Value::OneOf(words)) => format!(" -x -a '{}'", words.join(" ")),
                Some(Value::Other(_)) => " -x".to_owned(),
            };
            let meaning = if option.meaning.is_empty() {
                String::new()
            } else {
                format!(" -d {}", single_quoted(option.meaning))
            };
            let _ = writeln!(text, "{behind} {flag}{value}{meaning}");
        }
    }
    text
}

/// A word of zsh and of fish alike; only fish would read a backslash in it, and there is none in what it gets.
fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

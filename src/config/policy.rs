//! Deny and allow lists, and what is denied unless the configuration says otherwise.
//!
//! A guard rail against accidents, not the wall: a shell has endless ways to write a command, and what
//! keeps the host safe is the sandbox.

use regex::{Regex, RegexBuilder};

use super::{
    Policy, Rule, file,
    section::{At, Section},
    yaml,
};

/// Where a command begins: at the start of a line, after a separator, or after a word that runs another.
const COMMAND: &str = r#"(?:^|[\n;&|(`{]|\b(?:sudo|doas|env|nice|nohup|exec|command|busybox|time|timeout|setsid|ionice|xargs|then|do|else)\s+(?:-[ugCDhprRtTnsk]\s+\S+\s+|-\S+\s+|\w+=\S*\s+|\d[\d.]*[smhd]?\s+)*|\s-[a-z]*c\s+["']|\b(?:ba|z|da|k|mk|a)?sh\s+(?:-\S+\s+)*?-[a-z]*c\s+)\s*(?:[\w./-]*/)?"#;

/// The root folder, as an argument of its own, however it is quoted or doubled.
const ROOT: &str = r#"\s["']?/+(?:\.{1,2}/*)*\*?["']?\*?(?:[\s;&|)"'`}]|$)"#;

/// A whole disk, or a part of one.
const DISK: &str = r#"["']?/dev/(?:sd|nvme|vd|xvd|hd|mmcblk|disk|md|dm-|mapper/)"#;

/// Built-in rules, in the spirit of the first QuickCMD: names, and patterns with `COMMAND`, `ROOT` and
/// `DISK` written as `<C>`, `<R>` and `<D>`.
const DENY: [(&str, &str); 10] = [
    // Flag and target in either order, as GNU rm takes them.
    (
        "root-deletion",
        r#"(?:^|[^\w-])rm(?:\s[^;&|\n]*?)??(?:\s(?:-[a-zA-Z]*[rR][a-zA-Z]*|--recursive)(?:\s[^;&|\n]*?)??<R>|\s["']?/+(?:\.{1,2}/*)*\*?["']?\*?\s(?:[^;&|\n]*\s)?(?:-[a-zA-Z]*[rR]|--recursive))"#,
    ),
    ("root-deletion-unguarded", r"(?:^|[^\w-])rm\s[^;&|\n]*--no-preserve-root\b"),
    (
        "fork-bomb",
        r":\s*\(\s*\)\s*\{\s*:\s*\|\s*:\s*&\s*;?\s*\}|\b(?:fork)?bomb\s*\(\s*\)\s*\{[^}]*\|[^}]*&\s*;?\s*\}",
    ),
    (
        "shutdown",
        r#"<C>(?:shutdown|reboot|halt|poweroff|(?:tel)?init\s+[06]|systemctl\s+(?:-\S+\s+)*(?:reboot|poweroff|halt|kexec))(?:[\s;&|)"'`}]|$)"#,
    ),
    ("mkfs", r#"<C>(?:mkfs(?:\.\w+)?|mke2fs)(?:[\s;&|)"'`}]|$)"#),
    ("disk-overwrite", r"(?:^|[^\w-])dd\s[^;&|\n]*\bof=<D>"),
    ("disk-redirect", r">\|?\s*<D>"),
    (
        "root-permissions",
        r#"(?:^|[^\w-])chmod\s(?:[^;&|\n]*\s)??(?:[0-7]?777|(?:a|ugo)?[+=]rwx\w*)(?:\s[^;&|\n]*?)??<R>"#,
    ),
    // `curl ... | python -m json.tool` reads data, `curl ... | python` a program.
    (
        "pipe-to-shell",
        r#"\b(?:curl|wget)\b(?:"[^"]*"|'[^']*'|\\\n|&[\w%=]|[^;&\n"'])*?[^|]\|&?\s*(?:(?:sudo|doas|env|exec|nohup)\s+(?:-[ugCDhprRtT]\s+\S+\s+|-\S+\s+|\w+=\S*\s+)*)*(?:[\w./-]*/)?(?:(?:ba|z|da|k|mk|a|fi|c|tc)?sh(?:[\s;&|)"'`}]|$)|(?:python[\d.]*|perl|ruby|node|php)\s*(?:-\s*)?(?:[;&|)"'`}\n]|$))"#,
    ),
    (
        "download-to-shell",
        r#"\b(?:(?:ba|z|da|k|mk|a)?sh|eval|source|python[\d.]*)\s[^;&|\n]*?(?:\$\(|<\(|`)\s*(?:curl|wget)\b|(?:^|[;&|\n])\s*\.\s+<\(\s*(?:curl|wget)\b"#,
    ),
];

/// The rules that hold if the configuration has no `deny` list.
pub(super) fn built_in() -> Vec<Rule> {
    let rule = |(name, pattern): &(&str, &str)| {
        let whole = pattern.replace("<C>", COMMAND).replace("<R>", ROOT).replace("<D>", DISK);
        Rule {
            name: (*name).to_owned(),
            pattern: compile(&whole).expect("the built-in patterns compile, a test sees to it"),
        }
    };
    DENY.iter().map(rule).collect()
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(4 << 20).build()
}

/// `policy`, or the file that `policy_file` names.
pub(super) fn read(top: &mut Section<'_>) -> Policy {
    let file = top.get("policy_file");
    match file {
        Some(file) if top.given("policy") => file.fault("stands beside `policy`: keep one of the two"),
        Some(file) => {
            // Only asked for, so that its keys are known.
            top.section("policy").finish();
            return from_file(&file).unwrap_or_else(|| Policy { allow: Vec::new(), deny: built_in() });
        }
        None => {}
    }
    lists(top.section("policy"))
}

/// A file with the keys of `policy` at its top.
fn from_file(at: &At<'_>) -> Option<Policy> {
    let path = at.notes.path(at.text()?);
    let named = |what: String| at.fault(format!("{} {what}", path.display()));
    let contents = file::read(&path).map_err(named).ok()?;
    if contents.world_writable() {
        named("may be changed by every user of this host: chmod o-w it".to_owned());
    }
    let text = String::from_utf8(contents.bytes).map_err(|_| named("is not UTF-8 text".to_owned())).ok()?;
    let root =
        yaml::parse(&text).map_err(|wrong| named(format!("{} in line {}", wrong.what, wrong.line))).ok()?;
    Some(lists(Section::top(at.notes, &path, root)))
}

/// The built-in rules hold where there is no `deny` list, or beside it if `built_in` says so.
fn lists(mut section: Section<'_>) -> Policy {
    let deny = section.get("deny").map(rules);
    let with_built_in = section.flag("built_in", deny.is_none());
    let mut all = if with_built_in { built_in() } else { Vec::new() };
    let names: Vec<String> = all.iter().map(|rule| rule.name.clone()).collect();
    for rule in deny.unwrap_or_default() {
        if names.contains(&rule.name) {
            section
                .fault("deny", format!("names a rule {:?} that is built in: choose another name", rule.name));
        }
        all.push(rule);
    }
    if all.is_empty() {
        section.notes.warn("the policy denies nothing: not even the built-in rules hold");
    }
    let allow = section.get("allow").map(rules).unwrap_or_default();
    section.finish();
    Policy { allow, deny: all }
}

fn rules(at: At<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for at in at.list().unwrap_or_default() {
        let Some(mut section) = at.section() else { continue };
        let name = section.text("name");
        let pattern = section.get("pattern").and_then(|at| {
            at.read(|text| match text {
                "" => Err("is empty and would match every command: write `.*` if that is meant".to_owned()),
                _ => compile(text).map_err(|error| format!("is no regular expression: {}", reason(&error))),
            })
        });
        for (key, given) in [("name", section.given("name")), ("pattern", section.given("pattern"))] {
            if !given {
                section.fault(key, "is missing: a rule is a `name` and a `pattern`");
            }
        }
        if let (Some(name), Some(pattern)) = (name, pattern) {
            if rules.iter().any(|rule| rule.name == name) {
                section.fault(
                    "name",
                    format!("{name:?} is the name of another rule: refusals tell rules by their names"),
                );
            }
            rules.push(Rule { name, pattern });
        }
        section.finish();
    }
    rules
}

/// The last line of the regex crate's message says what is wrong; those above draw it.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or("").trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

//! Checks of one source file: how it opens, how long its lines and functions are, what it must not
//! hold.

use crate::tidy::Offence;

const LINE_COLUMNS: usize = 100;
const FUNCTION_LINES: usize = 70;
const BANNED_NAMES: [&str; 5] = ["util", "common", "misc", "helpers", "types"];

/// Checks the text of the file at `path`.
pub(crate) fn check(path: &str, text: &str) -> Vec<Offence> {
    let mut offences = Vec::new();
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    let folders = path.split('/');
    if BANNED_NAMES.iter().any(|name| *name == stem || folders.clone().any(|part| part == *name)) {
        offences.push(Offence::new(path, 0, "the name says nothing; name what is in it"));
    }
    if !text.starts_with("//!") {
        offences.push(Offence::new(path, 1, "does not open with //! and what it is for"));
    }
    let code = blank_out(text);
    offences.extend(unfinished(path, &code));
    let product = product_lines(path, &code);
    for (at, (line, bare)) in text.lines().zip(code.lines()).enumerate().take(product) {
        let columns = line.chars().count();
        // A text cannot always be broken, and rustfmt leaves it alone; code and comments can.
        let only_text = bare.chars().filter(|c| !c.is_whitespace()).count() < columns / 3;
        let comment = line.trim_start().starts_with("//");
        // The row of a table cannot be broken either.
        if comment && line.trim_start().trim_start_matches(['/', '!']).starts_with(" |") {
            continue;
        }
        if columns > LINE_COLUMNS && (comment || !only_text) {
            offences.push(Offence::new(path, at + 1, format!("{columns} columns")));
        }
    }
    for (line, name, lines) in functions(&code, product) {
        if lines > FUNCTION_LINES {
            offences.push(Offence::new(path, line, format!("fn {name} has {lines} lines")));
        }
    }
    offences
}

fn unfinished(path: &str, code: &str) -> Vec<Offence> {
    let marks = ["todo!", "unimplemented!", "#[ignore", "dbg!"];
    let mut offences = Vec::new();
    for (at, line) in code.lines().enumerate() {
        for mark in marks.iter().filter(|mark| line.contains(*mark)) {
            offences.push(Offence::new(path, at + 1, format!("holds {mark}")));
        }
    }
    offences
}

/// How many lines of the file are product code: none of a test's, else all before its module of
/// tests.
fn product_lines(path: &str, code: &str) -> usize {
    let test = path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "testkit"));
    if test {
        return 0;
    }
    let lines: Vec<&str> = code.lines().collect();
    let module = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ")
    });
    module.unwrap_or(lines.len())
}

/// The functions that begin within the first `limit` lines: line, name and length in lines, from
/// `fn` to the closing brace.
fn functions(code: &str, limit: usize) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().take(limit) {
        let Some(name) = function_name(line) else { continue };
        let mut depth = 0usize;
        'body: for (end, line) in lines.iter().enumerate().skip(at) {
            for c in line.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth <= 1 => {
                        found.push((at + 1, name, end - at + 1));
                        break 'body;
                    }
                    '}' => depth -= 1,
                    // A declaration without a body.
                    ';' if depth == 0 && !line.contains('[') => break 'body,
                    _ => {}
                }
            }
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let (before, after) = line.split_once("fn ")?;
    let words = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern"];
    if !before.split_whitespace().all(|word| words.contains(&word) || word.starts_with('"')) {
        return None;
    }
    let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The text with comments and the insides of literals made blank, line by line, so that braces and
/// words in them do not count.
fn blank_out(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let length = match (c, chars.get(at + 1)) {
            ('/', Some('/')) => line_comment(&chars[at..]),
            ('/', Some('*')) => block_comment(&chars[at..]),
            ('"', _) => quoted(&chars[at..]),
            ('r', Some('"' | '#')) if !after_word(&chars, at) => raw(&chars[at..]).unwrap_or(1),
            ('\'', _) => character(&chars[at..]).unwrap_or(1),
            _ => 1,
        };
        if length == 1 {
            out.push(c);
        } else {
            out.extend(chars[at..at + length].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        }
        at += length;
    }
    out
}

/// Whether the character before is part of a name, so that `r` here is its end and not a prefix;
/// `br` is a prefix, too.
fn after_word(chars: &[char], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|at| chars.get(at)).copied();
    match before(1) {
        Some('b') => before(2).is_some_and(|c| c.is_alphanumeric() || c == '_'),
        Some(c) => c.is_alphanumeric() || c == '_',
        None => false,
    }
}

fn line_comment(rest: &[char]) -> usize {
    rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        match (rest.get(at), rest.get(at + 1)) {
            (Some('/'), Some('*')) => {
                depth += 1;
                at += 2;
            }
            (Some('*'), Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while let Some(c) = rest.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw text; `None` for a raw identifier such as `r#type`.
fn raw(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let body = 2 + hashes;
    let ends = |at: &usize| {
        rest[*at] == '"'
            && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    Some((body..rest.len()).find(ends).map_or(rest.len(), |at| at + 1 + hashes))
}

/// The length of a character literal; `None` for a lifetime.
fn character(rest: &[char]) -> Option<usize> {
    match (rest.get(1), rest.get(2)) {
        (Some('\\'), _) => {
            let end = rest.iter().skip(3).take(10).position(|c| *c == '\'')?;
            Some(end + 4)
        }
        (Some(_), Some('\'')) => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(path, text).into_iter().map(|o| format!("{}: {}", o.line, o.what)).collect()
    }

    #[test]
    fn a_good_file_is_left_alone() {
        let text = "//! What it is for.\n\nfn main() {\n    println!(\"{{ todo!\"); // todo!\n}\n";
        assert!(found("crates/x/src/main.rs", text).is_empty());
    }

    #[test]
    fn the_opening_and_the_name_count() {
        assert_eq!(
            found("crates/x/src/util.rs", "fn x() {}\n"),
            [
                "0: the name says nothing; name what is in it",
                "1: does not open with //! and what it is for"
            ]
        );
        assert_eq!(found("crates/x/src/helpers/mod.rs", "//! X.\n").len(), 1);
    }

    #[test]
    fn long_lines_and_functions_are_found_outside_tests_only() {
        let long = format!("//! X.\n// {}\n", "x".repeat(98));
        assert_eq!(found("crates/x/src/a.rs", &long), ["2: 101 columns"]);
        assert!(found("tests/cli/a.rs", &long).is_empty());
        let row = format!("//! X.\n//! | {} |\n", "x".repeat(120));
        assert!(found("crates/x/src/a.rs", &row).is_empty());
        let text = format!("let x = \"{}\";\n", "x".repeat(120));
        assert!(found("crates/x/src/a.rs", &format!("//! X.\n{text}")).is_empty());
        let body = "    let a = [1; 2];\n".repeat(69);
        let function = format!("pub(crate) async fn long(\n) {{\n{body}}}\n");
        let offences = found("crates/x/src/a.rs", &format!("//! X.\n{function}"));
        assert_eq!(offences, ["2: fn long has 72 lines"]);
        let tested = format!("//! X.\n#[cfg(test)]\nmod tests {{\n{function}}}\n");
        assert!(found("crates/x/src/a.rs", &tested).is_empty());
    }

    #[test]
    fn unfinished_work_is_found_in_tests_too() {
        let text = "//! X.\n#[ignore = \"slow\"]\nfn a() { todo!() }\n";
        assert_eq!(found("tests/a.rs", text), ["2: holds #[ignore", "3: holds todo!"]);
    }

    #[test]
    fn literals_and_lifetimes_do_not_confuse_the_braces() {
        let text = "//! X.\nfn a<'x>(c: &'x str) -> char {\n  let _ = ('{', '\\'', '\\u{7d}', \"}\\\"{\", \
                    r#\"}\"{\"#, br\"{\");\n  /* { /* } */ { */\n  'y'\n}\nfn b();\n";
        assert_eq!(functions(&blank_out(text), 99), [(2, "a".to_owned(), 5)]);
    }
}

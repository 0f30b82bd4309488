//! Rust text without its comments and literals, so that a rule about code reads only code.

/// Blanks comments, strings and characters; line breaks stay, so line numbers do too.
pub(super) fn without_prose(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let prose = prose_length(rest, code.chars().next_back());
        if prose == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (skipped, after) = rest.split_at(prose);
            code.push(' ');
            code.extend(skipped.chars().filter(|&c| c == '\n'));
            rest = after;
        }
    }
    code
}

/// Length in bytes of the comment or literal that the text starts with, 0 if none.
fn prose_length(text: &str, before: Option<char>) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment_length(text);
    }
    if let Some(quoted) = text.strip_prefix('"') {
        return 1 + quoted_length(quoted);
    }
    let starts_word = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if starts_word && (text.starts_with('r') || text.starts_with("br")) {
        return raw_string_length(text);
    }
    if text.starts_with('\'') {
        return character_length(text);
    }
    0
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Up to and with the closing quote.
fn quoted_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_length(text: &str) -> usize {
    let after_letters = text.trim_start_matches('b').trim_start_matches('r');
    let hashes = after_letters.len() - after_letters.trim_start_matches('#').len();
    let letters = text.len() - after_letters.len();
    let Some(body) = after_letters[hashes..].strip_prefix('"') else {
        return 0;
    };
    let end = format!("\"{}", "#".repeat(hashes));
    let start = letters + hashes + 1;
    body.find(&end)
        .map_or(text.len(), |at| start + at + end.len())
}

/// A character literal; a lifetime is none.
fn character_length(text: &str) -> usize {
    let inner = &text[1..];
    if let Some(escape) = inner.strip_prefix('\\') {
        return escape
            .char_indices()
            .skip(1)
            .find(|&(_, c)| c == '\'')
            .map_or(0, |(at, _)| 2 + at + 1);
    }
    let mut characters = inner.char_indices();
    match (characters.next(), characters.next()) {
        (Some(_), Some((at, '\''))) => 1 + at + 1,
        _ => 0,
    }
}

/// Whether the code has this path or identifier as a whole word.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let starts_inside = before.is_some_and(is_part) && word.starts_with(is_part);
        let ends_inside = after.is_some_and(is_part) && word.ends_with(is_part);
        !starts_inside && !ends_inside
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        for (text, code) in [
            ("a // unsafe\nb", "a  \nb"),
            ("a /* x /* y */\n */ b", "a  \n b"),
            (r#"f("un\"safe", 1)"#, "f( , 1)"),
            ("r#\"unsafe \"x\" \"#; y", " ; y"),
            ("br\"x\" + for_r\"x\"", "  + for_r "),
            (
                "match c { '\"' => 1, '\\'' => 2, '\\u{7f}' => 3 }",
                "match c {   => 1,   => 2,   => 3 }",
            ),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("let r#type = 1;", "let r#type = 1;"),
        ] {
            assert_eq!(without_prose(text), code, "of {text}");
        }
    }

    #[test]
    fn a_word_is_whole() {
        assert!(has_word("pub unsafe fn f()", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
        assert!(has_word("use aya::maps;", "aya"));
        assert!(!has_word("let maya = 1;", "aya"));
        assert!(has_word("std::fs::read(x)", "std::fs"));
    }
}

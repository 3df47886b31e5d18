//! Words from outside, made harmless for the place they are put.

/// For the text of an element and for an attribute in double quotes, of HTML and of SVG.
///
/// Signs that XML forbids become `\u{fffd}`, so that a figure stays a well-formed file.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(sign),
            '\0'..='\u{1f}' | '\u{7f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ if turns(sign) => out.push('\u{fffd}'),
            _ => out.push(sign),
        }
    }
    out
}

/// Whether a sign turns the direction of the words that follow, even outside the name it came with.
fn turns(sign: char) -> bool {
    matches!(sign, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON for the inside of a `script` element: nothing in it can end the element or open a comment.
pub(crate) fn script_json(value: &serde_json::Value) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            // In JSON these stand only within strings, where the escape means the same sign.
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            _ if turns(sign) => out.push('\u{fffd}'),
            _ => out.push(sign),
        }
    }
    out
}

/// A sentence in which `` `words` `` are code.
pub(crate) fn with_code(sentence: &str) -> String {
    let parts: Vec<&str> = sentence.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escape(sentence);
    }
    let marked = parts.iter().enumerate().map(|(at, part)| match at % 2 {
        0 => escape(part),
        _ => format!("<code>{}</code>", escape(part)),
    });
    marked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_place_it_is_in() {
        assert_eq!(escape("<a href=\"x\">'&'</a>\0"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;\u{fffd}");
        let hostile = serde_json::json!({"</script><!--": "]]>\u{2028}\u{2029}&"});
        let text = script_json(&hostile);
        assert!(!text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("still JSON"), hostile);
    }

    #[test]
    fn code_is_marked_where_the_marks_pair() {
        assert_eq!(with_code("run `a <b>` now"), "run <code>a &lt;b&gt;</code> now");
        assert_eq!(with_code("it`s"), "it`s");
    }
}

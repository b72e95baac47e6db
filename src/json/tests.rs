//! What serde_json says of a text and of what stands there, we say.

use super::{Json, Members, Value};
use proptest::prelude::*;

/// What serde_json reads there, in our terms.
fn reference(text: &str) -> Option<serde_json::Value> {
    serde_json::from_str(text).ok()
}

fn same(ours: &Value, theirs: &serde_json::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Bool(a), serde_json::Value::Bool(b)) => a == b,
        (Value::Number(a), serde_json::Value::Number(b)) => a.parse::<f64>().ok() == b.as_f64(),
        (Value::String(a), serde_json::Value::String(b)) => a == b,
        (Value::Array(a), serde_json::Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), serde_json::Value::Object(b)) => {
            a.0.len() == b.len() && a.0.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => false,
    }
}

fn compare(text: &str) {
    match (Value::parse(text), reference(text)) {
        (Ok(ours), Some(theirs)) => {
            assert!(same(&ours, &theirs), "{text}: {ours:?}");
            let again = ours.to_string();
            assert_eq!(Value::parse(&again).as_ref(), Ok(&ours), "{again}");
            assert!(same(&ours, &reference(&again).unwrap()), "{again}");
        }
        (Err(_), None) => {}
        // serde_json has no room for it, and we do not look
        (Ok(_), None) if serde_json::from_str::<f64>(text).is_err() && text.contains(['e', 'E']) => {}
        (ours, theirs) => panic!("{text}: {ours:?}, {theirs:?}"),
    }
}

#[test]
fn texts() {
    let good =
        r#"{"a": [1, -2, 3.5e+7, 0, 0.1, 1E3], "b": {"c": null}, "d": "\u00e9\ud83d\ude00\n\"\\\/", "": true, "a": false}"#;
    compare(good);
    for end in 0..good.len() {
        compare(&good[..end]);
    }
    for text in [
        "",
        " ",
        "nul",
        "nulll",
        "truefalse",
        "[1 2]",
        "[1,]",
        "[,1]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "--1",
        "\"\t\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\u+123\"",
        "\u{feff}1",
        "1 1",
        "\"é\u{10ffff}\"",
        "\"\\u0000\"",
        "[[[]]]",
        "-0",
        "1\u{a0}",
        "\"",
    ] {
        compare(text);
    }
    assert!(Value::parse(&"[".repeat(1_000_000)).is_err());
    assert_eq!(Value::parse("[1, x]"), Err("it is not JSON at byte 4".to_owned()));
}

#[test]
fn types() {
    fn there_and_back<T: Json + PartialEq + std::fmt::Debug>(value: T) {
        let text = value.to_json().to_string();
        assert_eq!(T::from_json(&Value::parse(&text).unwrap()), Ok(value), "{text}");
    }
    there_and_back(u64::MAX);
    there_and_back(i32::MIN);
    there_and_back([1_u8, 2, 3, 4, 5, 255]);
    there_and_back(vec![("a".to_owned(), "\u{1}\"".to_owned())]);
    there_and_back(Members(vec![("x".to_owned(), Some(1_u16)), ("y".to_owned(), None)]));
    for wrong in ["256", "-1", "1.0", "1e2", "\"1\"", "null", "[]"] {
        assert!(u8::from_json(&Value::parse(wrong).unwrap()).is_err(), "{wrong}");
    }
    assert!(<[u8; 6]>::from_json(&Value::parse("[1,2,3,4,5]").unwrap()).is_err());
    assert!(<(String, String)>::from_json(&Value::parse(r#"["a"]"#).unwrap()).is_err());
}

proptest! {
    #[test]
    fn any_text(text in r#"([\[\]{},:"\\ ]|null|true|1|-|\.|e|\\u[0-9a-f]{4}|[a-z\n]){0,30}"#) {
        compare(&text);
    }

    #[test]
    fn any_string(text in "\\PC*|.*") {
        let quoted = super::quoted(&text);
        prop_assert_eq!(Value::parse(&quoted), Ok(Value::String(text.clone())));
        prop_assert_eq!(serde_json::from_str::<String>(&quoted).ok(), Some(text));
    }
}

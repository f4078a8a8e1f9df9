//! The part of JSON Schema that ours use.

use serde_json::Value;

/// Checks a value; a keyword that is not known here is a mistake of the test's.
///
/// # Errors
/// Where it is not as the schema says, and how.
pub(crate) fn check(value: &Value, schema: &Value) -> Result<(), String> {
    check_at(value, schema, schema, "")
}

fn check_at(value: &Value, schema: &Value, root: &Value, at: &str) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{at} is {value}: {what}"));
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check_at(value, root.pointer(pointer).unwrap(), root, at)?;
            }
            "type" => {
                let one = std::slice::from_ref(rule);
                let types = rule.as_array().map_or(one, Vec::as_slice);
                if !types
                    .iter()
                    .any(|name| is_of(value, name.as_str().unwrap()))
                {
                    return wrong(format!("not {rule}"));
                }
            }
            "enum" if !rule.as_array().unwrap().contains(value) => {
                return wrong(format!("none of {rule}"));
            }
            "const" if value != rule => return wrong(format!("not {rule}")),
            "minimum" if value.is_number() && value.as_f64() < rule.as_f64() => {
                return wrong(format!("less than {rule}"));
            }
            "enum" | "const" | "minimum" => {}
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                        return wrong(format!("lacks {name}"));
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(rule, false);
                let known = schema["properties"].as_object().unwrap();
                for name in value
                    .as_object()
                    .into_iter()
                    .flat_map(|object| object.keys())
                {
                    if !known.contains_key(name) {
                        return wrong(format!("{name} is not in the schema"));
                    }
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check_at(value, rule, root, &format!("{at}/{name}"))?;
                    }
                }
            }
            "items" => {
                for (number, value) in value.as_array().into_iter().flatten().enumerate() {
                    check_at(value, rule, root, &format!("{at}/{number}"))?;
                }
            }
            "oneOf" => {
                let rules = rule.as_array().unwrap().iter();
                let results: Vec<_> = rules.map(|rule| check_at(value, rule, root, at)).collect();
                if results.iter().filter(|result| result.is_ok()).count() != 1 {
                    return wrong(format!("not exactly one of {results:?}"));
                }
            }
            other => panic!("the schema's keyword {other} is not checked"),
        }
    }
    Ok(())
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

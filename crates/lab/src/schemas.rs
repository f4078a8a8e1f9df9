//! Makes the JSON Schemas in `crates/lab/schema` of their types, and tests that the files are current.

use std::fs;

use rstlab_witness::Record;
use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};

use crate::judges::{check, matrix};
use crate::makes::{bench, demo, load};
use crate::watches::watch;

/// Each schema's file, and the type whose JSON it describes.
fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("bench", of::<bench::BenchReport>()),
        ("check", of::<check::CheckReport>()),
        ("demo", of::<demo::Demonstration>()),
        ("load", of::<load::LoadReport>()),
        ("matrix", of::<matrix::Matrix>()),
        ("record", of::<Record>()),
        ("through", of::<check::through::ThroughReport>()),
        ("watch", of::<watch::WatchedReset>()),
    ]
}

fn of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with_transform(strict);
    settings.into_generator().into_root_schema_for::<T>()
}

/// Forbids fields that the type does not have, and removes formats that only Rust knows.
fn strict(schema: &mut Schema) {
    transform_subschemas(&mut strict, schema);
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(text) = object.get_mut("description") {
        *text = text.as_str().unwrap_or_default().replace('\n', " ").into();
    }
    // Formats such as uint64 are no formats of JSON Schema; the bounds stand beside them.
    if object
        .get("format")
        .is_some_and(|format| format != "date-time")
    {
        object.remove("format");
    }
    if !object.contains_key("properties") {
        return;
    }
    // The fields of a flattened enum belong to the object around it, and only that object knows all of them.
    let Some(branches) = object.get_mut("oneOf").and_then(|them| them.as_array_mut()) else {
        object.insert("additionalProperties".to_owned(), false.into());
        return;
    };
    for branch in branches.iter_mut().filter_map(|it| it.as_object_mut()) {
        branch.remove("additionalProperties");
    }
    object.insert("unevaluatedProperties".to_owned(), false.into());
}

#[test]
fn the_schemas_in_the_repository_are_those_of_the_types() {
    for (name, schema) in schemas() {
        let path = format!("{}/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
        jsonschema::meta::validate(schema.as_value()).unwrap();
        let made = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("WRITE_SCHEMAS").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let stored = fs::read_to_string(&path).unwrap();
        assert!(
            stored == made,
            "{path} is old: `WRITE_SCHEMAS=1 cargo test -p rstlab-lab schemas` writes it anew"
        );
    }
}

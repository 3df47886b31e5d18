//! Every file in `configs/` is a preset of the program, and says what it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn configs() -> PathBuf {
    PathBuf::from("../../configs")
}

fn preset_names(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            preset_names(&path, &format!("{prefix}{stem}/"), names);
        } else {
            names.push(format!("{prefix}{stem}"));
        }
    }
}

#[test]
fn every_config_file_is_embedded_and_round_trips() {
    let mut found = Vec::new();
    preset_names(&configs(), "", &mut found);
    assert!(found.len() >= 4, "{found:?}");
    let show = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_twoview")).args(["config", "show"]).args(args).output();
        let output = output.expect("the program starts");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    for name in found {
        let file = configs().join(format!("{name}.toml"));
        let embedded = show(&["--preset", &name]);
        assert_eq!(embedded, show(&[file.to_str().expect("UTF-8")]), "{name} is embedded as it lies in configs/");
        let printed = dir.path().join("printed.toml");
        fs::write(&printed, &embedded).expect("written");
        assert_eq!(embedded, show(&[printed.to_str().expect("UTF-8")]), "{name} reads back as it was printed");
        let text = fs::read_to_string(&file).expect("UTF-8");
        assert!(text.starts_with("# ") && text.contains("# Run "), "{name} says what it is and how to run it");
    }
}

/// The schema that a `$ref` leads to.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|at| at.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in the schema")),
        None => schema,
    }
}

/// Whether a value other than an object has one of a schema's types, and is one of its words.
fn is_of(schema: &Value, value: &Value) -> bool {
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let is_typed = types.into_iter().any(|name| match name {
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        _ => false,
    });
    let words = schema["enum"].as_array();
    // A constant says its type by itself.
    is_typed && words.is_none_or(|words| words.contains(value)) || schema.get("const") == Some(value)
}

/// Whether an object is described by a schema: every key known, every required key there, and no other key allowed.
fn describes(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolved(root, schema);
    let kinds = ["oneOf", "anyOf"].into_iter().filter_map(|of| schema[of].as_array()).flatten();
    if kinds.clone().next().is_some() {
        return kinds.into_iter().any(|kind| describes(root, kind, value));
    }
    if let (Some(list), Some(items)) = (value.as_array(), schema.get("items")) {
        return list.iter().all(|item| describes(root, items, item));
    }
    let (Some(keys), Some(known)) = (value.as_object(), schema["properties"].as_object()) else {
        return is_of(schema, value);
    };
    schema["additionalProperties"] == false
        && schema["required"].as_array().into_iter().flatten().all(|key| keys.contains_key(key.as_str().unwrap_or("")))
        && keys.iter().all(|(key, value)| {
            known.get(key).is_some_and(|schema| {
                let constant = &schema["const"];
                (constant.is_null() || constant == value) && describes(root, schema, value)
            })
        })
}

#[test]
fn the_schema_describes_every_preset_and_nothing_else() {
    let print = |args: &[&str]| -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_twoview")).args(args).output().expect("the program starts");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let schema = print(&["config", "schema"]);
    let mut found = Vec::new();
    preset_names(&configs(), "", &mut found);
    for name in found {
        let preset = print(&["config", "show", "--preset", &name, "--json"]);
        assert!(describes(&schema, &schema, &preset), "{name}");
        for path in ["/loss", "/encoder", "/data/source", "/augment/0", "/eval/linear", "/optimizer", "/schedule"] {
            let mut wrong = preset.clone();
            let object = wrong.pointer_mut(path).and_then(Value::as_object_mut).expect("an object");
            object.insert("wrong".to_owned(), 1.into());
            assert!(!describes(&schema, &schema, &wrong), "{name}: {path}.wrong is accepted");
            for (key, value) in preset.pointer(path).and_then(Value::as_object).expect("an object") {
                // Another type than any setting has in that place: a list of lists.
                let mut other = preset.clone();
                *other.pointer_mut(path).and_then(|at| at.get_mut(key)).expect("a key") = serde_json::json!([[value]]);
                assert!(!describes(&schema, &schema, &other), "{name}: {path}.{key} is accepted in another type");
            }
            let mut less = preset.clone();
            let object = less.pointer_mut(path).and_then(Value::as_object_mut).expect("an object");
            let keys: Vec<String> = object.keys().cloned().collect();
            object.clear();
            assert!(!describes(&schema, &schema, &less), "{name}: {path} without {keys:?} is accepted");
        }
    }
}

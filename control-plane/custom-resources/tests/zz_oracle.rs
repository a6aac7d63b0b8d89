use std::time::Instant;
#[test]
fn gateway() {
    for entry in std::fs::read_dir("/work/shared/testdata/manifests/gateway-api").unwrap() {
        let path = entry.unwrap().path();
        if !path.extension().is_some_and(|e| e == "yaml") { continue; }
        let text = std::fs::read_to_string(&path).unwrap();
        let options = serde_saphyr::options::Options::default();
        let _ = options;
        let Ok(object) = serde_json::from_str::<serde_json::Value>(&std::process::Command::new("python3").args(["-c","import yaml,json,sys;print(json.dumps(yaml.safe_load(open(sys.argv[1])),default=str))"]).arg(&path).output().map(|o| String::from_utf8(o.stdout).unwrap()).unwrap()) else { continue };
        let _ = text;
        let mut object = object;
        custom_resources::definition::default(&mut object);
        let start = Instant::now();
        let found = custom_resources::review(&object, None);
        let took = start.elapsed();
        let def = custom_resources::Definition::parse(&object);
        let start = Instant::now();
        let bytes = bytes::Bytes::from(object.to_string());
        let custom: Vec<_> = def.versions.iter().map(|v| custom_resources::Custom::new(&object, &bytes, &def, &v.name)).collect();
        println!("{} {took:?} build {:?} {} versions {}", path.file_name().unwrap().to_string_lossy(), start.elapsed(), object.to_string().len(), custom.len());
        for f in found { println!("   {}", f.to_string().chars().take(600).collect::<String>()); }
    }
}

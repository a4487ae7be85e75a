//! Files and variables as operators write them, with mistakes.

use super::*;

const TEMPLATE: &str = include_str!("../../config/tr50d.toml");

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), text).expect("writing it");
    Config::load(Some(file.path()), variables(env))
}

fn variables(env: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    owned.into_iter()
}

#[test]
fn the_template_has_every_key_with_its_default() {
    assert_eq!(load(TEMPLATE, &[]).expect("the template"), Config::default());
    let template: toml::Table = TEMPLATE.parse().expect("TOML");
    for (section, keys) in KEYS {
        for key in *keys {
            let value = template.get(*section).and_then(|table| table.get(*key));
            assert!(value.is_some(), "config/tr50d.toml lacks {section}.{key}");
        }
    }
}

#[test]
fn the_pools_name_keys_that_exist_and_their_defaults() {
    let template: toml::Table = TEMPLATE.parse().expect("TOML");
    for (_, info) in base::pool::POOLS {
        use base::pool::Max::{Each, Key};
        let (Key(name, default) | Each(name, default)) = info.max else { continue };
        let (section, key) = name.split_once('.').expect("a section and a key");
        let value = template.get(section).and_then(|table| table.get(key));
        assert_eq!(value.and_then(toml::Value::as_integer), i64::try_from(default).ok(), "{name}");
    }
}

#[test]
fn the_file_overrides_the_defaults_and_the_environment_the_file() {
    let text = "[mqtt]\nlisten = \"127.0.0.1:1\"\n[tcp]\nlisten = \"none\"\n[log]\n\
                format = \"json\"\n[server]\ndurability = \"disk\"";
    let env = [
        ("TR50D_MQTT__LISTEN", "127.0.0.1:0"),
        ("TR50D_PROXY__TRUSTED", "10.0.0.0/8, ::1"),
        ("TR50D_HTTP__CORS_ORIGINS", "https://app.example, http://localhost:3000"),
        ("TR50D_LIMITS__COMMANDS_PER_S", "0"),
        ("TR50D_LOG__LEVEL", "debug"),
        ("TR50D_URL", "mqtt://is-for-call"),
        ("TR50D_PASSWORD_FILE", "too"),
        ("TR50D_CONTEXT", "too"),
        ("TR50D_TEST_CLIENTS", "1"),
        ("TR50", "not ours"),
        ("PATH", "/bin"),
    ];
    let config = load(text, &env).expect("a good configuration");
    assert_eq!(config.mqtt.listen, "127.0.0.1:0".parse().ok());
    assert_eq!(config.tcp.listen, None);
    let allowed = ["https://app.example", "http://localhost:3000", "https://other.example"];
    let allowed = allowed.map(|origin| config.http.cors_origins.allow(origin).is_some());
    assert_eq!(allowed, [true, true, false]);
    assert_eq!(config.http.listen, Http::default().listen);
    assert_eq!(config.log, Log { level: LevelFilter::DEBUG, format: LogFormat::Json });
    assert_eq!(config.server.durability, Durability::Disk);
    assert_eq!(config.limits.commands_per_s, 0);
    assert!(config.proxy.trusted.contains("10.1.2.3".parse().expect("an address")));
    assert!(config.proxy.trusted.contains("::1".parse().expect("an address")));
}

#[test]
fn mistakes_are_named() {
    let check = |text: &str, env: &[(&str, &str)], parts: &[&str]| {
        let error = load(text, env).expect_err(text).to_string();
        for part in parts {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    };
    check("[mqtt]\nlissen = 1", &[], &["no key \"lissen\"", "[mqtt]"]);
    check("[mqqt]\nlisten = 1", &[], &["no section [mqqt]"]);
    check("[mqqt]", &[], &["no section [mqqt]"]);
    check("listen = 1", &[], &["\"listen\"", "outside of every section"]);
    check("[mqtt", &[], &["not valid TOML", "line 1"]);
    check("[sessions]\nttl_s = \"a day\"", &[], &["\"ttl_s\"", "[sessions]", "whole number"]);
    check("[sessions]\nttl_s = -1", &[], &["\"ttl_s\"", "-1"]);
    check("[tcp]\nlisten = \"localhost\"", &[], &["address and port", "\"localhost\""]);
    check("[server]\ndurability = \"ram\"", &[], &["\"os\" or \"disk\""]);
    check("[tls]\nclient_auth = \"maybe\"", &[], &["\"none\", \"optional\" or \"required\""]);
    check("[tls]\nclient_login = \"\"", &[], &["\"none\", \"thing\" or \"user\""]);
    check("[server]\nallow_plaintext = 1", &[], &["\"allow_plaintext\"", "true or false"]);
    check("[log]\nlevel = \"loud\"", &[], &["[log]", "trace"]);
    for wrong in ["[\"https://app.example/\"]", "[\"app.example\"]", "\"*\"", "[1]"] {
        let text = format!("[http]\ncors_origins = {wrong}");
        check(&text, &[], &["\"cors_origins\"", "[http]", "a list of origins"]);
    }
    check("[proxy]\ntrusted = [\"10.0.0.0/33\"]", &[], &["\"trusted\"", "[proxy]"]);
    check("", &[("TR50D_MQTT__PORT", "1")], &["TR50D_MQTT__PORT", "\"port\"", "[mqtt]"]);
    check("", &[("TR50D_MQQT__LISTEN", "1")], &["TR50D_MQQT__LISTEN", "[mqqt]"]);
    check("", &[("TR50D_HOME", "1")], &["environment variable TR50D_HOME", "<SECTION>__<KEY>"]);
    check("", &[("TR50D_MQTT_LISTEN", "x")], &["TR50D_MQTT_LISTEN:", "mean TR50D_MQTT__LISTEN?"]);
    check("", &[("TR50D_MQTT__", "")], &["TR50D_MQTT__:"]);
    check("", &[("TR50D___LISTEN", "")], &["TR50D___LISTEN:"]);
    check("", &[("TR50D_", "")], &["TR50D_:"]);
    check("", &[("TR50D_SESSIONS__TTL_S", "x")], &["TR50D_SESSIONS__TTL_S", "\"x\""]);
}

#[test]
fn contradictions_are_told_in_a_sentence() {
    let check = |env: &[(&str, &str)], part: &str| {
        let error = load("", env).expect_err(part).to_string();
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    };
    check(&[("TR50D_MQTT__TLS_LISTEN", "127.0.0.1:8883")], "mqtt.tls_listen needs tls.cert");
    check(&[("TR50D_TLS__CERT", "a.pem")], "tls.cert and tls.key need each other");
    check(&[("TR50D_TLS__CLIENT_CA", "a.pem")], "tls.client_ca needs tls.cert");
    check(&[("TR50D_TLS__CLIENT_AUTH", "optional")], "tls.client_auth needs tls.client_ca");
    check(&[("TR50D_TLS__CLIENT_AUTH", "required")], "tls.client_auth needs tls.client_ca");
    check(&[("TR50D_TLS__CLIENT_LOGIN", "user")], "tls.client_login needs tls.client_ca");
    let tls = [("TR50D_TLS__CERT", "a"), ("TR50D_TLS__KEY", "b"), ("TR50D_TLS__CLIENT_CA", "c")];
    let login = [("TR50D_TLS__CLIENT_AUTH", "none"), ("TR50D_TLS__CLIENT_LOGIN", "thing")];
    check(&[&tls[..], &login].concat(), "tls.client_login needs tls.client_ca and a");
    check(&[("TR50D_SESSIONS__TTL_S", "0")], "sessions.ttl_s must be");
    check(&[("TR50D_SESSIONS__TTL_S", "259201")], "longer than sessions.max_age_s");
    check(&[("TR50D_SESSIONS__LIST_LIMIT", "0")], "sessions.list_limit");
    check(&[("TR50D_LIMITS__MAX_FRAME_BYTES", "0")], "limits.max_frame_bytes");
    check(&[("TR50D_LIMITS__MEMORY_BYTES", "1048575")], "limits.memory_bytes must be 0 or");
    check(&[("TR50D_LIMITS__MEMORY_BYTES", "4194303")], "four times limits.max_frame_bytes");
    check(&[("TR50D_LIMITS__CONNECTIONS", "0")], "limits.connections");
    check(&[("TR50D_LIMITS__CONNECTIONS_PER_ADDRESS", "0")], "limits.connections_per_address");
    check(&[("TR50D_LIMITS__SESSIONS_PER_PRINCIPAL", "0")], "limits.sessions_per_principal");
    check(&[("TR50D_LIMITS__BROKER_LINKS", "0")], "limits.broker_links");
    check(&[("TR50D_TCP__LISTEN", "127.0.0.1:1883")], "mqtt.listen and tcp.listen");
    check(
        &[("TR50D_MQTT__LISTEN", ""), ("TR50D_TCP__LISTEN", "none"), ("TR50D_HTTP__LISTEN", "")],
        "every listener",
    );
}

#[test]
fn the_demo_stays_on_loopback() {
    let config = Config::demo(None, variables(&[])).expect("the demo");
    assert!(config.server.data_dir.starts_with(std::env::temp_dir()));
    assert!(!config.server.data_dir.exists());
    let env = [("TR50D_SERVER__DATA_DIR", "elsewhere"), ("TR50D_MQTT__LISTEN", "[::1]:0")];
    let config = Config::demo(None, variables(&env)).expect("still loopback");
    assert_eq!(config.server.data_dir, Path::new("elsewhere"));
    let env = [("TR50D_HTTP__LISTEN", "0.0.0.0:8080")];
    let error = Config::demo(None, variables(&env)).expect_err("public").to_string();
    assert!(error.contains("http.listen must be a loopback address"), "{error}");
}

#[test]
fn plain_listeners_beyond_loopback_have_to_be_allowed() {
    let check = |env: &[(&str, &str)], key: Option<&str>| {
        let config = load("", env).expect("no contradiction");
        let refused = config.check_exposure().map_err(|error| error.to_string());
        match key {
            None => assert_eq!((refused, config.check()), (Ok(()), Vec::new()), "{env:?}"),
            Some(key) => {
                let sentence = refused.expect_err(key);
                assert!(sentence.contains(&format!("{key} is ")), "{sentence}");
                assert!(sentence.contains("server.allow_plaintext = true"), "{sentence}");
                assert_eq!(config.check().len(), 1);
            }
        }
    };
    check(&[], None);
    check(&[("TR50D_MQTT__LISTEN", "[::1]:1883"), ("TR50D_TCP__LISTEN", "127.8.9.1:1")], None);
    check(&[("TR50D_HTTP__LISTEN", "[::ffff:127.0.0.1]:80")], None);
    for (name, key) in [("MQTT", "mqtt.listen"), ("TCP", "tcp.listen"), ("HTTP", "http.listen")] {
        let name = format!("TR50D_{name}__LISTEN");
        for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
            check(&[(&name, address)], Some(key));
            check(&[(&name, address), ("TR50D_SERVER__ALLOW_PLAINTEXT", "true")], None);
            let trusted = ("TR50D_PROXY__TRUSTED", "0.0.0.0/0");
            check(&[(&name, address), trusted], Some(key));
        }
    }
    let tls = [("TR50D_TLS__CERT", "a"), ("TR50D_TLS__KEY", "b")];
    check(&[tls[0], tls[1], ("TR50D_MQTT__TLS_LISTEN", "0.0.0.0:8883")], None);
}

#[test]
fn check_finds_files_that_are_not_there() {
    let env = [
        ("TR50D_SERVER__BOOTSTRAP", "/nowhere/demo.toml"),
        ("TR50D_TLS__CERT", "/nowhere/cert.pem"),
        ("TR50D_TLS__KEY", "/nowhere/key.pem"),
    ];
    let problems = load("", &env).expect("well-formed").check();
    // Whether a certificate can be used is for who serves TLS.
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("server.bootstrap"));
    assert!(Config::default().check().is_empty());
    let missing = Config::load(Some(Path::new("/nowhere/x.toml")), variables(&[]));
    assert!(missing.expect_err("no file").to_string().contains("/nowhere/x.toml"));
}

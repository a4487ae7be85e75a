use super::*;

const ORGS: &str = r#"
[[org]]
key = "SYSTEM"
slug = "system"
[[org]]
id = "5cf885f41c5bd771c8065be8"
key = "BasicOrg"
slug = "basic-org"
name = "Basic"
parent = "system"
"#;

const ROLE: &str = r#"
[[role]]
key = "device"
org = "SYSTEM"
permissions = ["session", "thing.list"]
"#;

fn read_text(text: &str) -> Result<Records, Problem> {
    let mut next = 0;
    read(text, Timestamp::from_millis(1), &mut |bytes| {
        next += 1;
        bytes.fill(next);
    })
}

#[test]
fn defaults_are_filled_in() {
    let application = r#"
        [[application]]
        name = "app"
        org = "basicorg"
        token = "secret-token-016"
        token_name = "token"
        roles = ["DEVICE"]
    "#;
    let records = read_text(&[ORGS, ROLE, application].concat()).expect("right");
    let (system, basic) = (&records.orgs[0], &records.orgs[1]);
    assert_eq!(system.id, OrgId::from_bytes([1; 12]));
    assert_eq!((system.name.as_str(), system.parent), ("SYSTEM", None));
    assert_eq!(basic.id.to_string(), "5cf885f41c5bd771c8065be8");
    assert_eq!((basic.name.as_str(), basic.parent), ("Basic", Some(system.id)));
    let (role, application) = (&records.roles[0], &records.applications[0]);
    assert_eq!(role.permissions, ["session", "thing.list"]);
    assert_eq!((application.org, &application.roles[..]), (basic.id, &[role.id][..]));
    assert_eq!(application.token_hash[..], Sha256::digest("secret-token-016")[..]);
    assert!(!application.auto_register && !application.org_admin);
}

#[test]
fn a_token_can_be_given_by_its_hash() {
    let digest = Sha256::digest("secret-token-016");
    let application = format!(
        "[[application]]\nname = 'app'\norg = 'SYSTEM'\ntoken_name = 't'\ntoken_hash = '{}'\n",
        HEXLOWER.encode(&digest)
    );
    let records = read_text(&[ORGS, &application].concat()).expect("right");
    assert_eq!(records.applications[0].token_hash[..], digest[..]);
}

#[test]
fn standard_roles_need_no_permissions() {
    let role = |key: &str| format!("[[role]]\nkey = '{key}'\norg = 'BasicOrg'\n");
    let records = read_text(&[ORGS, ROLE, &role("Developer")].concat()).expect("right");
    assert_eq!(
        (records.roles[1].name.as_str(), records.roles[1].permissions.len()),
        ("Developer", 149)
    );
    assert_eq!(records.roles[1].topic_publish, ["#"]);
    assert!(
        records.roles[0].topic_publish.is_empty() && records.roles[0].topic_subscribe.is_empty()
    );
    let unfit =
        r#"the role "clerk" has an unfit permissions: only device, automation and developer"#;
    check_refused(&role("clerk"), &format!("{unfit} have some of their own"));
}

#[test]
fn roles_say_which_topics_they_give() {
    let role =
        |key: &str, more: &str| format!("[[role]]\nkey = '{key}'\norg = 'BasicOrg'\n{more}\n");
    let lists = "topic_publish = ['%thingKey%/#']\ntopic_subscribe = []";
    let clerk = role("clerk", &["permissions = ['topic']", lists].join("\n"));
    let device = role("device", lists);
    let automation = role("automation", "permissions = ['topic']");
    let records = read_text(&[ORGS, &clerk, &device, &automation].concat()).expect("right");
    let topics = |index: usize| {
        let role = &records.roles[index];
        (role.topic_publish.join(" "), role.topic_subscribe.join(" "))
    };
    assert_eq!(topics(0), ("%thingKey%/#".to_owned(), String::new()));
    assert_eq!(topics(1), topics(0));
    assert_eq!(topics(2), Default::default(), "not of a role with permissions of its own");
    let unfit = format!(r#"the role "device" has an unfit topic_subscribe: {TOPIC_FILTER_RULE}"#);
    for filter in ["a/#/b", "$SYS/#", "%thing%/#"] {
        check_refused(&role("device", &format!("topic_subscribe = ['{filter}']")), &unfit);
    }
}

#[test]
fn passwords_are_hashed_and_hashes_are_kept() {
    let hash = hash_password("other", [9; 16]);
    let users = format!(
        "[[user]]\nemail = \"a@b\"\npassword = \"secret\"\nhome = \"BasicOrg\"\n\
         [[user]]\nemail = \"c@d\"\npassword_hash = \"{hash}\"\nhome = \"SYSTEM\"\n"
    );
    let records = read_text(&[ORGS, &users].concat()).expect("right");
    assert!(is_usable_hash(&records.users[0].password_hash));
    assert_eq!(records.users[1].password_hash, hash);
}

/// The orgs and the role above with this added are refused, in these words.
fn check_refused(added: &str, expected: &str) {
    let problem = read_text(&[ORGS, ROLE, added].concat()).expect_err("wrong");
    assert_eq!(problem.to_string(), expected, "{added}");
}

#[test]
fn what_is_wrong_with_an_organisation_is_named() {
    let check = |rest: &str, expected: &str| check_refused(&format!("[[org]]\n{rest}"), expected);
    let taken = r#"the organisation key "basicorg" is given twice"#;
    check("key = 'basicorg'\nslug = 'b-b'", taken);
    let taken = r#"the slug "basic-org" is given twice"#;
    check("key = 'B'\nslug = 'basic-org'", taken);
    let taken = r#"the organisation id "5cf885f41c5bd771c8065be8" is given twice"#;
    check("key = 'B'\nslug = 'b-b'\nid = '5cf885f41c5bd771c8065be8'", taken);
    let unfit = format!(r#"the organisation " B" has an unfit key: {NAME_RULE}"#);
    check("key = ' B'\nslug = 'b-b'", &unfit);
    for slug in ["Bad", "ab", "1ab", "ab-", "a_b"] {
        let unfit = format!(r#"the organisation "B" has an unfit slug: {SLUG_RULE}"#);
        check(&format!("key = 'B'\nslug = '{slug}'"), &unfit);
    }
    let unknown = r#"the organisation "B" names the organisation "C", which is not there"#;
    check("key = 'B'\nslug = 'b-b'\nparent = 'C'", unknown);
    check("key = 'B'\nslug = 'b-b'\nid = 'xyz'", "line 19: not 24 hexadecimal digits");
}

#[test]
fn what_is_wrong_with_a_user_is_named() {
    let entry = |rest: &str| format!("[[user]]\nemail = 'a@b'\n{rest}\n");
    let check = |rest: &str, expected: &str| check_refused(&entry(rest), expected);
    let unknown = r#"the user "a@b" names the organisation "Nowhere", which is not there"#;
    check("password = 'x'\nhome = 'Nowhere'", unknown);
    let membership = "[[user.membership]]\norg = 'SYSTEM'\nroles = ['nobody']";
    let unknown = r#"the user "a@b" names the role "nobody", which is not there"#;
    check(&format!("password = 'x'\nhome = 'SYSTEM'\n{membership}"), unknown);
    let unfit = r#"the user "a@b" has an unfit password: exactly one of "#;
    let unfit = &format!("{unfit}password and password_hash is needed");
    check("home = 'SYSTEM'", unfit);
    check("home = 'SYSTEM'\npassword = 'x'\npassword_hash = 'x'", unfit);
    let unfit =
        r#"the user "a@b" has an unfit password_hash: it is no argon2id hash in PHC form, "#;
    check("home = 'SYSTEM'\npassword_hash = 'x'", &format!("{unfit}or one that costs too much"));
    let first = entry("password = 'x'\nhome = 'SYSTEM'");
    let both = [first.clone(), first.replace("a@b", "A@B")].concat();
    check_refused(&both, r#"the email "A@B" is given twice"#);
    let unfit = r#"the user "nobody" has an unfit email: it is no e-mail address"#;
    check_refused(&first.replace("a@b", "nobody"), unfit);
}

#[test]
fn what_is_wrong_with_an_application_is_named() {
    let entry = |rest: &str| {
        format!("[[application]]\nname = 'app'\ntoken_name = 't'\norg = 'SYSTEM'\n{rest}\n")
    };
    let unfit = r#"the application "app" has an unfit token: 16 to 256 printable ASCII characters"#;
    check_refused(&entry("token = 'short'"), unfit);
    let unfit = r#"the application "app" has an unfit token: exactly one of token and token_hash"#;
    check_refused(&entry(""), &format!("{unfit} is needed"));
    check_refused(
        &entry("token = 'secret-token-016'\ntoken_hash = ''"),
        &format!("{unfit} is needed"),
    );
    let unfit = r#"the application "app" has an unfit token_hash: it is no SHA-256 in 64 "#;
    for hash in ["secret-token-016", "c0ffee", &"g0".repeat(32)] {
        let unfit = format!("{unfit}hexadecimal digits");
        check_refused(&entry(&format!("token_hash = '{hash}'")), &unfit);
    }
    let first = entry("token = 'secret-token-016'");
    let hash = HEXLOWER.encode(&Sha256::digest("secret-token-016"));
    let same_token = [&first, &*entry(&format!("token_hash = '{hash}'")).replace("'app'", "'b'")];
    let taken = r#"the application "b" has the token of another one"#;
    check_refused(&same_token.map(String::from).concat(), taken);
    let same_token = [first.clone(), first.replace("'app'", "'other'")].concat();
    check_refused(&same_token, r#"the application "other" has the token of another one"#);
    let same_name = [first, entry("token = 'another-token-16'")].concat();
    check_refused(&same_name, r#"the application "app of SYSTEM" is given twice"#);
    let unknown_key = read_text(&[ORGS, ROLE, &entry("colour = 'red'")].concat());
    let Err(Problem::Syntax { line: 20, message }) = unknown_key else { panic!("{unknown_key:?}") };
    assert!(message.starts_with("unknown field `colour`, expected one of"), "{message}");
}

#[test]
fn rings_deep_trees_and_empty_files_are_refused() {
    let org = |key: usize, parent: usize| {
        format!("[[org]]\nkey = \"o{key}\"\nslug = \"slug-{key}\"\nparent = \"o{parent}\"\n")
    };
    let ring = [org(1, 2), org(2, 3), org(3, 1)].concat();
    assert_eq!(read_text(&ring).expect_err("a ring"), Problem::Ring("o1".into()));
    // One that only hangs below a ring is found all the same.
    let tail = [org(4, 1), org(1, 2), org(2, 1)].concat();
    assert_eq!(read_text(&tail).expect_err("a ring"), Problem::Ring("o1".into()));
    let root = "[[org]]\nkey = \"o0\"\nslug = \"slug-0\"\n".to_owned();
    let tree = |depth: usize| -> String {
        std::iter::once(root.clone()).chain((1..depth).map(|level| org(level, level - 1))).collect()
    };
    assert!(read_text(&tree(limits::ORG_DEPTH_MAX)).is_ok());
    assert!(matches!(read_text(&tree(limits::ORG_DEPTH_MAX + 1)), Err(Problem::Deep(_))));
    assert_eq!(read_text("").expect_err("empty"), Problem::NoOrg);
}

#[test]
fn an_address_has_one_way_to_be_written() {
    for good in ["a@b", "operator@basicorg.example", "first.last+tag@x-y.example", "ü@b.example"] {
        assert!(is_email(good), "{good}");
    }
    let bad = [
        "", "a", "@", "a@", "@b", "a@b@c", "a@@b", "a@b.", "a@.b", "a@b..c", ".a@b", "a.@b",
        "a..b@c", "\"a\"@b", "<a@b>", "a@b;c@d", "a,b@c", "a b@c", "a@b\t", "a:b@c", "a@[::1]",
    ];
    for bad in bad {
        assert!(!is_email(bad), "{bad}");
    }
}

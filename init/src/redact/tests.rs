use proptest::prelude::*;

use super::*;

fn in_pieces(secrets: &[&[u8]], pieces: &[&[u8]]) -> Vec<u8> {
    let mut redactor = Redactor::new(secrets, true);
    let mut out = Vec::new();
    for piece in pieces {
        redactor.push(piece, &mut out);
    }
    redactor.finish(&mut out);
    out
}

/// Checks the whole text, every cut into two, and byte by byte.
fn check(secrets: &[&str], text: &str, expected: &str) {
    let secrets: Vec<&[u8]> = secrets.iter().map(|s| s.as_bytes()).collect();
    let shown = |out: Vec<u8>| String::from_utf8_lossy(&out).into_owned();
    assert_eq!(shown(in_pieces(&secrets, &[text.as_bytes()])), expected);
    for cut in 0..text.len() {
        let (a, b) = text.as_bytes().split_at(cut);
        assert_eq!(shown(in_pieces(&secrets, &[a, b])), expected, "cut at {cut} of {text:?}");
    }
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    assert_eq!(shown(in_pieces(&secrets, &bytes)), expected, "byte by byte: {text:?}");
}

/// `§` stands for the mask.
fn check_all(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        check(&[], text, &expected.replace('§', MASK));
    }
}

#[test]
fn named_values() {
    check_all(&[
        ("password=hunter2", "password=§"),
        ("password: hunter2\nnext", "password: §\nnext"),
        ("PASSWORD = hunter2 rest", "PASSWORD = § rest"),
        ("Passwd:x", "Passwd:§"),
        ("pwd=x;uid=y", "pwd=§;uid=y"),
        ("DB_PASSWORD=x", "DB_PASSWORD=§"),
        ("spring.datasource.password=x", "spring.datasource.password=§"),
        ("access_token=abc&user=x", "access_token=§&user=x"),
        ("?token=abc HTTP/1.1", "?token=§ HTTP/1.1"),
        ("api_key=a apikey=b api-key: c", "api_key=§ apikey=§ api-key: §"),
        ("X-Api-Key: abc", "X-Api-Key: §"),
        ("client_secret='a b c' d", "client_secret='§' d"),
        ("secretAccessKey: abc", "secretAccessKey: §"),
        ("aws_secret_access_key = wJalr/XUtn+FEMI", "aws_secret_access_key = §"),
        (r#"{"password": "x y", "a": 1}"#, r#"{"password": "§", "a": 1}"#),
        (r#"{"password":"a\"b","c":"d"}"#, r#"{"password":"§","c":"d"}"#),
        (r#""{\"token\":\"abc\",\"b\":1}""#, r#""{\"token\":\"§",\"b\":1}""#),
        (r#"{"token":12345,"a":1}"#, r#"{"token":§,"a":1}"#),
        (r#"{"secret":{"token":"x"}}"#, r#"{"secret":{"token":"§"}}"#),
        ("config['password'] = 'x'", "config['password'] = '§'"),
        ("password => 'x'", "password => '§'"),
        ("password := x", "password := §"),
        ("if password == 'x'", "if password == '§'"),
        ("password=\u{e9}\u{20ac}x y", "password=§ y"),
        ("password=a\0b", "password=§\0b"),
        // An open quote does not hide the next line.
        ("password=\"abc\nnext", "password=\"§\nnext"),
        ("password=[REDACTED] x", "password=§ x"),
    ]);
}

#[test]
fn what_only_looks_like_a_named_value_stays() {
    for text in [
        "password",
        "Password: ",
        "password=\nnext",
        "password=\"\"",
        "the password is x",
        "std::token::Kind",
        "a token (x): y",
        "tokenize this",
        "secret",
        "PWD=/work\nOLDPWD=/\n",
        "Authorization:\nx",
    ] {
        check(&[], text, text);
    }
    check_all(&[("PWD=x", "PWD=§"), ("pwd=/x", "pwd=§"), ("MYPWD=/x", "MYPWD=§"), ("PWD_A=/x", "PWD_A=§")]);
}

#[test]
fn credentials() {
    check_all(&[
        ("Authorization: Bearer abc.def-ghi\r\n", "Authorization: Bearer §\r\n"),
        ("authorization: bearer abcdef\n", "authorization: bearer §\n"),
        ("-H 'Authorization: Basic dXNlcjpwYXNz' x", "-H 'Authorization: Basic §' x"),
        ("Authorization: abcdefghijklmnopqrstuvwxyz0123456789", "Authorization: §"),
        ("Authorization: token ghp_abc rest", "Authorization: token § rest"),
        ("Authorization: abc", "Authorization: §"),
        (r#"{"Authorization": "Bearer abc"}"#, r#"{"Authorization": "§"}"#),
        ("got Bearer eyJhbGciOi.eyJzdWIiOi.SflKxwRJ_-x, ok", "got Bearer §, ok"),
        ("Bearer abc123", "Bearer §"),
        ("bearer   A1 b", "bearer   § b"),
        ("Basic dXNlcjpwYXNz.", "Basic §."),
        ("Basic dXNlcjpwYXNzd29yZGRkZGRkZGRkZGRkZGRkZA== x", "Basic § x"),
    ]);
    for text in [
        "missing bearer token",
        "The Bearer. Next",
        "Basic information",
        "Basic Authentication required",
        "basically 12345678",
        "basic",
        "bearer ",
        "forbearer X1",
        "bearer\nX1Y2",
    ] {
        check(&[], text, text);
    }
}

#[test]
fn aws_key_ids() {
    check_all(&[
        ("id AKIAIOSFODNN7EXAMPLE.", "id AKIA§."),
        ("ASIAIOSFODNN7EXAMPLE", "ASIA§"),
        ("xAKIAIOSFODNN7EXAMPLEMORE y", "xAKIA§ y"),
        ("AKIAIOSFODNN7EXAMPL", "AKIAIOSFODNN7EXAMPL"),
        ("akiaiosfodnn7example", "akiaiosfodnn7example"),
        ("AKIAIOSFODAKIAIOSFODNN7EXAMPLE", "AKIA§"),
        ("ASIA akiA AKIAa", "ASIA akiA AKIAa"),
    ]);
}

#[test]
fn the_agents_own_tokens() {
    let digits = "0123456789abcdef".repeat(4);
    let upper = digits.to_uppercase();
    for (text, shown) in [
        (format!("it is qca_{digits}."), "it is qca_§.".to_owned()),
        (format!("xqca_{digits}abc y"), "xqca_§ y".to_owned()),
        (
            format!("curl -H 'Authorization: Bearer qca_{digits}'"),
            "curl -H 'Authorization: Bearer §'".to_owned(),
        ),
        (format!("qca_{}", &digits[1..]), format!("qca_{}", &digits[1..])),
        (format!("QCA_{digits}"), format!("QCA_{digits}")),
        (format!("qca_{upper}"), format!("qca_{upper}")),
        ("qca_ qca_1".to_owned(), "qca_ qca_1".to_owned()),
    ] {
        check(&[], &text, &shown.replace('§', MASK));
    }
}

#[test]
fn private_keys() {
    let key = |kind: &str| format!("a\n-----BEGIN {kind}-----\nMIIE+/=\nabc-def\n-----END {kind}-----\nb");
    for kind in [
        "PRIVATE KEY",
        "RSA PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
        "PGP PRIVATE KEY BLOCK",
    ] {
        check(&[], &key(kind), &format!("a\n-----BEGIN {kind}-----{MASK}-----END {kind}-----\nb"));
    }
    check(&[], &key("CERTIFICATE"), &key("CERTIFICATE"));
    check_all(&[
        (
            "-----BEGIN PRIVATE KEY-----\nab------END PRIVATE KEY-----x",
            "-----BEGIN PRIVATE KEY-----§-----END PRIVATE KEY-----x",
        ),
        ("-----BEGIN PRIVATE KEY-----\nab-----EN", "-----BEGIN PRIVATE KEY-----§"),
        ("-----BEGIN PRIVATE KEY---x", "-----BEGIN PRIVATE KEY---x"),
    ]);
    // What never ends does not hide everything.
    let text = format!("-----BEGIN PRIVATE KEY-----{}password=x", "A\n".repeat(40_000));
    let out = String::from_utf8(redact_all::<&str>(&[], text.as_bytes())).unwrap();
    assert!(out.ends_with(&format!("A\npassword={MASK}")));
}

#[test]
fn passwords_in_urls() {
    check_all(&[
        ("postgres://me:pw@host/db", "postgres://me:§@host/db"),
        ("redis://:pw@host:6379", "redis://:§@host:6379"),
        ("x amqp://u:p@a:1,u:q@b:2 y", "x amqp://u:§@b:2 y"),
        ("https://u:p@ss@host/a@b", "https://u:§@host/a@b"),
        ("https://u:p/w?x@host/", "https://u:§@host/"),
        ("https://u:1234@host", "https://u:§@host"),
        ("\"https://u:p\u{e9}@host\"", "\"https://u:§@host\""),
        ("a://u:p@h,b://v:q@g", "a://u:§@h,b://v:§@g"),
        ("a://b://u:p@h", "a://b://u:§@h"),
    ]);
    for text in [
        "http://localhost:8080/path@x",
        "http://localhost:8080?a=b@c",
        "http://localhost:4873/@types/node",
        "http://localhost:8080",
        "Listening on http://localhost:8080\n",
        "http://[::1]:8080/@",
        "https://user@host:22/x",
        "https://u:@host",
        "see ://a:b@c",
        "ratio 1://",
    ] {
        check(&[], text, text);
    }
}

#[test]
fn a_long_password_in_a_url() {
    let masked = |text: &str| {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(777).collect();
        let out = in_pieces(&[], &pieces);
        assert_eq!(out, redact_all::<&str>(&[], text.as_bytes()), "in pieces");
        String::from_utf8(out).unwrap()
    };
    let long = "x%2F".repeat(url::LONGEST);
    assert_eq!(masked(&format!("postgres://u:{long}@host/db")), format!("postgres://u:{MASK}@host/db"));
    assert_eq!(masked(&format!("postgres://u:{long} {long}")), format!("postgres://u:{MASK} {long}"));
    let digits = "1".repeat(2 * url::LONGEST);
    assert_eq!(masked(&format!("http://u:{digits}")), format!("http://u:{digits}"));
}

/// A step a byte: with one a byte of each occurrence this would take minutes.
#[test]
fn a_value_that_overlaps_itself() {
    let secret = "a".repeat(60_000);
    let text = "a".repeat(1_000_000);
    assert_eq!(redact_str(&[&secret], &text), MASK);
    assert_eq!(redact_str(&[&secret], &text[..59_999]), text[..59_999]);
    let many: Vec<String> = (0..200).map(|i| format!("{i}-{}", "b".repeat(300))).collect();
    assert_eq!(redact_str(&many, &format!("x{}y", many[199])), format!("x{MASK}y"));
}

#[test]
fn known_values() {
    let cases: [(&[&str], &str, &str); 11] = [
        (&["s3cr3t"], "a s3cr3t b", "a § b"),
        (&["s3cr3t"], "s3cr3ts3cr3t", "§"),
        (&["s3cr3t"], "s3cr3", "s3cr3"),
        (&["abcdef", "defghi"], "xabcdefghix", "x§x"),
        (&["abcdef", "cd", "bcde", "efgh"], "abcdefgh", "§"),
        (&["abcd", "abcdefgh"], "abcdefg abcdefgh", "§efg §"),
        (&["aaaa"], "baaaaaaab", "b§b"),
        (&["abc", ""], "abc", "abc"),
        (&["line one\nline two\n"], "x line one\nline two\n", "x §"),
        (&["line one\nline two\n"], "  line two\r\n  line one", "  §\r\n  §"),
        (&["file value\n"], "got file value.", "got §."),
    ];
    for (secrets, text, expected) in cases {
        check(secrets, text, &expected.replace('§', MASK));
    }
    let many: Vec<String> = (0..500).map(|n| format!("value-{n}-of-many")).collect();
    let out = redact_str(&many, "a value-77-of-many b value-499-of-many");
    assert_eq!(out, format!("a {MASK} b {MASK}"));
}

#[test]
fn rules_do_not_hide_secrets_from_each_other() {
    check(&["abcdef"], "password=xabcdefx y", &format!("password={MASK} y"));
    check(&["word=x"], "password=xyz end", &format!("pass{MASK} end"));
    check_all(&[
        (
            "secret-----BEGIN RSA PRIVATE KEY-----\nAA\n-----END RSA PRIVATE KEY-----",
            "secret-----BEGIN RSA PRIVATE KEY-----§-----END RSA PRIVATE KEY-----",
        ),
        ("token-AKIAIOSFODNN7EXAMPLE", "token-AKIA§"),
        ("DB_URL=postgres://u:p@h", "DB_URL=postgres://u:§@h"),
    ]);
}

#[test]
fn without_patterns_only_known_values_are_masked() {
    let mut redactor = Redactor::new(&["known value"], false);
    let mut out = Vec::new();
    redactor.push(b"password=x known value", &mut out);
    redactor.finish(&mut out);
    assert_eq!(out, format!("password=x {MASK}").into_bytes());
}

#[test]
fn ordinary_text_comes_out_at_once() {
    for text in [
        "Continue? ",
        "Password: ",
        "password=",
        "a\nb",
        "token",
        "AKIA",
        "-----BEGIN ",
        "http://host/",
        "A",
        "Bearer ",
    ] {
        let mut redactor = Redactor::new(&["a value"], true);
        let mut out = Vec::new();
        redactor.push(text.as_bytes(), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), text);
        assert_eq!(redactor.held(), 0);
    }
}

#[test]
fn what_is_held_back_is_bounded() {
    let secret = "s".repeat(1000);
    let mut redactor = Redactor::new(&[&secret], true);
    let mut out = Vec::new();
    for piece in ["ftp://a:", "x", "password=\"", "sssss", "-----BEGIN PRIVATE KEY-----", "-", "Basic ", "b"]
    {
        for _ in 0..700 {
            redactor.push(piece.as_bytes(), &mut out);
            let bound = if piece.starts_with("ftp") || piece == "x" { url::LONGEST } else { 1000 };
            assert!(redactor.held() <= bound, "{piece}");
            assert!(
                redactor.state.masks.len() < 1000
                    && redactor.state.window.end() - redactor.state.window.base() < bound + 1000
            );
        }
    }
}

#[test]
fn it_does_not_print_what_it_knows() {
    assert_eq!(format!("{:?}", Redactor::new(&["hidden value"], true)), "Redactor { .. }");
}

/// Text that is full of beginnings and ends of secrets.
fn text() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: &[&str] = &[
        "password",
        "PWD",
        "OLDPWD",
        "token",
        "secret",
        "api-key",
        "authorization",
        "Authorization: ",
        "=",
        ":",
        "==",
        "::",
        "=/",
        "\"",
        "'",
        "\\",
        " ",
        "\n",
        ",",
        "&",
        "]",
        "{",
        "x",
        "abc1",
        "Bearer ",
        "basic ",
        "dXNlcjpwYXNz",
        "AKIA",
        "ASIA",
        "qca_",
        "0123456789abcdef0123456789abcdef",
        "IOSFODNN7EXAMPLE",
        "-----BEGIN ",
        "-----BEGIN RSA PRIVATE KEY-----",
        "PRIVATE KEY",
        "-----",
        "-",
        "-----END",
        "MIIE",
        "https://",
        "://",
        "user:",
        "@",
        "/",
        "?",
        "8080",
        "host",
        "\u{e9}",
        "\u{20ac}",
        "alpha",
        "alphabeta",
        "betagamma",
        "alp",
        "ha",
        "aaaa",
        "a",
        "\u{0}",
        "averyveryverylongword0123456789",
    ];
    let part = prop_oneof![
        10 => proptest::sample::select(PARTS).prop_map(|s| s.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|b| vec![b]),
    ];
    proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

const KNOWN: [&str; 5] = ["alphabeta", "betagamma", "aaaa", "habet", "mma\nalpha"];

/// What must be masked of the known values, found in the simplest way.
fn known_mask(text: &[u8]) -> Vec<bool> {
    let mut masked = vec![false; text.len()];
    for secret in KNOWN {
        for at in 0..text.len() {
            if text[at..].starts_with(secret.as_bytes()) {
                masked[at..at + secret.len()].fill(true);
            }
        }
    }
    masked
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_do_not_matter(text in text(), cuts in proptest::collection::vec(0usize..400, 0..12)) {
        let secrets: Vec<&[u8]> = KNOWN.iter().map(|s| s.as_bytes()).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        let whole = in_pieces(&secrets, &[&text]);
        let cut = in_pieces(&secrets, &pieces);
        prop_assert_eq!(String::from_utf8_lossy(&cut), String::from_utf8_lossy(&whole));
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        prop_assert_eq!(in_pieces(&secrets, &bytes), whole);
    }

    #[test]
    fn known_values_are_masked_exactly(text in text()) {
        let masked = known_mask(&text);
        let mut expected = Vec::new();
        for (at, &byte) in text.iter().enumerate() {
            if !masked[at] {
                expected.push(byte);
            } else if at == 0 || !masked[at - 1] {
                expected.extend_from_slice(MASK.as_bytes());
            }
        }
        let mut redactor = Redactor::new(&KNOWN, false);
        let mut out = Vec::new();
        redactor.push(&text, &mut out);
        redactor.finish(&mut out);
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn any_bytes_and_any_values(text in proptest::collection::vec(any::<u8>(), 0..300), secrets in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..9), 0..5)) {
        let text: Vec<u8> = text.into_iter().map(|b| b % 4).collect();
        let refs: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        prop_assert_eq!(in_pieces(&refs, &bytes), in_pieces(&refs, &[&text]));
    }
}

/// `cargo test --release -p quickcmd-init --lib -- --ignored --nocapture speed`
#[test]
#[ignore = "a measurement"]
fn speed() {
    let line = |n: usize| {
        format!(
            "2026-01-01T00:00:{:02}Z INFO worker[{n}]: request id={n} path=/api/v1/items/{n}?page={n} took {n} ms\n",
            n % 60
        )
    };
    let log: String = (0..10_000).map(line).collect();
    let secret = "line of a secret: password=hunter2 token: abc https://u:p@host/\n";
    let texts = [
        ("log lines", log.clone()),
        (
            "log lines, one in a hundred with secrets",
            (0..10_000).map(|n| if n % 100 == 0 { secret.into() } else { line(n) }).collect(),
        ),
        ("secrets only", secret.repeat(10_000)),
        ("yes", "y\n".repeat(500_000)),
        ("URLs", "see http://localhost:8080/a/b and https://host/x\n".repeat(20_000)),
    ];
    let many: Vec<String> = (0..200).map(|n| format!("kn0wn-value-{n:04}")).collect();
    for (name, text) in &texts {
        for secrets in [&[][..], &["kn0wn-value-of-the-job".to_owned()], &many] {
            let mut redactor = Redactor::new(secrets, true);
            let mut out = Vec::with_capacity(1 << 20);
            let begin = std::time::Instant::now();
            let mut bytes = 0;
            while begin.elapsed().as_millis() < 500 {
                for piece in text.as_bytes().chunks(48 << 10) {
                    out.clear();
                    redactor.push(piece, &mut out);
                    bytes += piece.len();
                }
            }
            println!(
                "{name}, {} values: {} MB/s",
                secrets.len(),
                bytes / 1_000 / begin.elapsed().as_millis() as usize
            );
        }
    }
}

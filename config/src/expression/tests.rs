use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Expression {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    text.parse::<Expression>().map(|e| e.to_string()).expect_err(text).to_string()
}

fn errors(op: Op, value: f64) -> Expression {
    Expression::Compare { metric: Metric::NetworkErrorRatio, op, value }
}

const N: &str = "NetworkErrorRatio()";

#[test]
fn traefiks_own_examples() {
    assert_eq!(parsed("NetworkErrorRatio() > 0.30"), errors(Op::Gt, 0.3));
    let server_errors =
        Metric::ResponseCodeRatio { from: 500, to: 600, divided_by_from: 0, divided_by_to: 600 };
    assert_eq!(
        parsed("ResponseCodeRatio(500, 600, 0, 600) > 0.25 || NetworkErrorRatio() > 0.10"),
        Expression::Or(vec![
            Expression::Compare { metric: server_errors, op: Op::Gt, value: 0.25 },
            errors(Op::Gt, 0.1)
        ])
    );
    let median = Metric::LatencyAtQuantileMs(50.0);
    for text in [
        "LatencyAtQuantileMS(50.0) > 100",
        "LatencyAtQuantileMS ( 50 )>100.0",
        "1e2<LatencyAtQuantileMS(5e1)",
    ] {
        assert_eq!(parsed(text), Expression::Compare { metric: median.clone(), op: Op::Gt, value: 100.0 });
    }
}

#[test]
fn every_operator_on_either_side() {
    for (text, op) in
        [(">", Op::Gt), (">=", Op::Ge), ("<", Op::Lt), ("<=", Op::Le), ("==", Op::Eq), ("!=", Op::Ne)]
    {
        assert_eq!(parsed(&format!("{N}{text}0.5")), errors(op, 0.5));
        assert_eq!(parsed(&format!("0.5 {text} {N}")), errors(op.mirrored(), 0.5));
        for (left, right) in [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0)] {
            assert_eq!(op.holds(left, right), op.mirrored().holds(right, left), "{op}");
        }
    }
}

#[test]
fn not_binds_tightest_then_and_then_or() {
    let (a, b, c) = (errors(Op::Gt, 1.0), errors(Op::Gt, 2.0), errors(Op::Gt, 3.0));
    let text = |template: &str| {
        template
            .replace('a', &format!("{N} > 1"))
            .replace('b', &format!("{N} > 2"))
            .replace('c', &format!("{N} > 3"))
    };
    let or = |parts: &[&Expression]| Expression::Or(parts.iter().copied().cloned().collect());
    let and = |parts: &[&Expression]| Expression::And(parts.iter().copied().cloned().collect());
    let not = |inner: &Expression| Expression::Not(Box::new(inner.clone()));

    assert_eq!(parsed(&text("a || b && c")), or(&[&a, &and(&[&b, &c])]));
    assert_eq!(parsed(&text("a && b || c")), or(&[&and(&[&a, &b]), &c]));
    assert_eq!(parsed(&text("(a || b) && c")), and(&[&or(&[&a, &b]), &c]));
    assert_eq!(parsed(&text("a&&b&&c")), and(&[&a, &b, &c]));
    assert_eq!(parsed(&text("a && (b && c)")), and(&[&a, &and(&[&b, &c])]));
    assert_eq!(parsed(&text("!a && b")), and(&[&not(&a), &b]));
    assert_eq!(parsed(&text("!(a && b)")), not(&and(&[&a, &b])));
    assert_eq!(parsed(&text("! ! ((a))")), not(&not(&a)));
}

#[test]
fn the_canonical_form() {
    for (text, canonical) in [
        (" 0.50<NetworkErrorRatio( ) ", "NetworkErrorRatio() > 0.5"),
        ("!NetworkErrorRatio()\n>=\t.5", "!(NetworkErrorRatio() >= 0.5)"),
        (
            "((NetworkErrorRatio()>1||NetworkErrorRatio()>2))&&(NetworkErrorRatio()>3)",
            "(NetworkErrorRatio() > 1 || NetworkErrorRatio() > 2) && NetworkErrorRatio() > 3",
        ),
        ("LatencyAtQuantileMS(99.90) > 1e300", "LatencyAtQuantileMS(99.9) > 1e300"),
        ("ResponseCodeRatio(0500,600,0,600)==5.", "ResponseCodeRatio(500, 600, 0, 600) == 5"),
    ] {
        assert_eq!(parsed(text).to_string(), canonical);
        assert_eq!(parsed(canonical), parsed(text));
    }
}

#[test]
fn errors_tell_where_what_and_what_instead() {
    let functions = "; known functions: NetworkErrorRatio(), LatencyAtQuantileMS(50.0), \
                     ResponseCodeRatio(500, 600, 0, 600)";
    for (text, told) in [
        ("", "at character 1: expected a comparison such as NetworkErrorRatio() > 0.5, found the end"),
        ("(NetworkErrorRatio())", "at character 21: expected a comparison such as > 0.5, found \")\""),
        ("NetworkErrorRatio > 1", "at character 19: expected (, found \">\""),
        ("NetworkErrorRatio() > x", "at character 23: expected a number such as 0.5, found \"x\""),
        ("NetworkErrorRatio() > ", "at character 23: expected a number such as 0.5, found the end"),
        (
            "NetworkErrorRatio() > -1",
            "at character 23: expected a number without a sign: no metric is negative, found \"-\"",
        ),
        ("NetworkErrorRatio() > .", "at character 23: expected a number such as 0.5, found \".\""),
        (
            "NetworkErrorRatio() > 1e999",
            "at character 23: expected a number that is not as large, found \"1e999\"",
        ),
        ("NetworkErrorRatio() = 1", "at character 21: expected ==, found \"=\""),
        ("NetworkErrorRatio() > 1 & 2", "at character 25: expected &&, found \"&\""),
        ("NetworkErrorRatio() > 1 2", "at character 25: expected &&, || or the end, found \"2\""),
        ("NetworkErrorRatio() > 1)", "at character 24: expected &&, || or the end, found \")\""),
        ("(NetworkErrorRatio() > 1", "at character 25: expected &&, || or ), found the end"),
        ("networkErrorRatio() > 1", "at character 1: expected a known function, found \"networkErrorRatio\""),
        ("1 > 2", "at character 5: expected a function to compare with, found \"2\""),
        ("LatencyAtQuantileMS() > 1", "at character 21: expected a percentage from 0 to 100, found \")\""),
        (
            "LatencyAtQuantileMS(100.1) > 1",
            "at character 21: expected a percentage from 0 to 100, found \"100.1\"",
        ),
        (
            "ResponseCodeRatio(600, 500, 0, 600) > 1",
            "at character 24: expected a range that ends after it begins, found \"500\"",
        ),
        (
            "ResponseCodeRatio(500, 600) > 1",
            "at character 27: expected , and a second range of status codes, found \")\"",
        ),
        (
            "ResponseCodeRatio(5e2, 600, 0, 600) > 1",
            "at character 19: expected a status code such as 500, found \"5e2\"",
        ),
        (
            "ResponseCodeRatio(0, 65536, 0, 600) > 1",
            "at character 22: expected a status code such as 500, found \"65536\"",
        ),
        ("é", "at character 1: expected a function, a number, an operator or a parenthesis, found \"é\""),
    ] {
        assert_eq!(error(text), format!("{told}{functions}"), "{text}");
    }
    let long = error(&"x".repeat(100));
    assert!(long.contains(&format!("found \"{}\"…;", "x".repeat(40))), "{long}");
}

#[test]
fn bounds() {
    let one = format!("{N}>1");
    let nested =
        |open: &str, close: &str, times: usize| format!("{}{one}{}", open.repeat(times), close.repeat(times));
    for (open, close) in [("(", ")"), ("!", ""), ("!(", ")")] {
        parsed(&nested(open, close, MOST_DEPTH));
        let told = error(&nested(open, close, MOST_DEPTH + 1));
        assert!(told.ends_with("more than 32 parentheses or ! within each other; leave some out"), "{told}");
        error(&nested(open, close, 1300));
    }

    let many = |times| vec![one.as_str(); times].join("&&");
    parsed(&many(MOST_COMPARISONS));
    let told = error(&many(MOST_COMPARISONS + 1));
    assert_eq!(told, format!("at character {}: more than 64 comparisons; leave some out", 64 * 23 + 1));

    parsed(&format!("{one}{}", " ".repeat(MOST_BYTES - one.len())));
    let told = error(&" ".repeat(MOST_BYTES + 1));
    assert_eq!(
        told,
        "4097 bytes long when written out; at most 4096 are allowed: say it with fewer comparisons"
    );
    // Short enough as written, not in the canonical form, which a proxy would have to refuse.
    let dense = vec!["LatencyAtQuantileMS(.12345678901234567)>.12345678901234567"; 64].join("||");
    assert!(dense.len() < MOST_BYTES);
    assert!(error(&dense).ends_with("say it with fewer comparisons"));
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0_u32..100_000).prop_map(|n| f64::from(n) / 100.0),
        1 => any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(f64::abs),
    ]
}

fn metric() -> impl Strategy<Value = Metric> {
    let range = || (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        Just(Metric::NetworkErrorRatio),
        (0.0..=100.0).prop_map(Metric::LatencyAtQuantileMs),
        (range(), range()).prop_map(|((from, to), (divided_by_from, divided_by_to))| {
            Metric::ResponseCodeRatio { from, to, divided_by_from, divided_by_to }
        }),
    ]
}

fn expression() -> impl Strategy<Value = Expression> {
    let op = prop_oneof![Just(Op::Gt), Just(Op::Ge), Just(Op::Lt), Just(Op::Le), Just(Op::Eq), Just(Op::Ne)];
    let compare =
        (metric(), op, number()).prop_map(|(metric, op, value)| Expression::Compare { metric, op, value });
    compare.prop_recursive(6, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::Or),
            inner.prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    })
}

fn comparisons(expression: &Expression) -> usize {
    match expression {
        Expression::And(parts) | Expression::Or(parts) => parts.iter().map(comparisons).sum(),
        Expression::Not(inner) => comparisons(inner),
        Expression::Compare { .. } => 1,
    }
}

proptest! {
    /// Whatever is shown is read back to the same, however much space is in between.
    #[test]
    fn shown_and_read_back(expression in expression(), space in "[ \t\r\n]{0,2}") {
        let shown = expression.to_string();
        prop_assume!(shown.len() <= MOST_BYTES && comparisons(&expression) <= MOST_COMPARISONS);
        prop_assert_eq!(&parsed(&shown), &expression);
        let spaced = shown.replace(' ', &space);
        prop_assume!(spaced.len() <= MOST_BYTES);
        prop_assert_eq!(&parsed(&spaced), &expression);
    }

    /// Any text is refused with an error or read; never a panic.
    #[test]
    fn any_text(text in any::<String>()) {
        let _ = text.parse::<Expression>();
    }

    /// The same of texts made of the language's own words, which get further.
    #[test]
    fn any_words(words in prop::collection::vec(prop::sample::select(vec![
        "NetworkErrorRatio()", "LatencyAtQuantileMS(", "ResponseCodeRatio(1,2,3,4)", "(", ")", ",", "!", "!=", "==",
        ">", "<", "&&", "||", "0.5", "1e5", ".", " ", "é", "-",
    ]), 0..40)) {
        if let Ok(expression) = words.concat().parse::<Expression>() {
            prop_assert_eq!(parsed(&expression.to_string()), expression);
        }
    }
}

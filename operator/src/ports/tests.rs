//! What the allocator does in any life, and what becomes of claims.

use proptest::prelude::*;

use super::*;

fn service(i: u8) -> ServiceId {
    ServiceId::new("ns", format!("s{i}"))
}

fn confirmed(first: u16, last: u16, records: Vec<Record>) -> Allocator {
    let mut allocator = Allocator::new(first, last, records);
    let question = allocator.question();
    allocator.confirm(&question, &BTreeSet::new());
    allocator
}

#[derive(Debug, Clone)]
enum Step {
    Allocate(u8, u16),
    Release(u8),
    Reclaim(u8, u16, u16),
    Confirm(Vec<u16>),
    Rebuild,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6u8, 80..83u16).prop_map(|(s, p)| Step::Allocate(s, p)),
        2 => (0..6u8).prop_map(Step::Release),
        1 => (0..6u8, 80..83u16, 100..112u16).prop_map(|(s, p, l)| Step::Reclaim(s, p, l)),
        2 => prop::collection::vec(100..112u16, 0..4).prop_map(Step::Confirm),
        1 => Just(Step::Rebuild),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Through any life: one owner a port, an owner keeps its port, a port given back is not handed out before a question
    /// put after its release was answered without it.
    #[test]
    fn no_port_ever_has_two_owners(steps in steps()) {
        let mut allocator = confirmed(100, 111, vec![]);
        let mut truth: BTreeMap<Owner, u16> = BTreeMap::new();
        let mut doubtful: BTreeSet<u16> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Allocate(s, port) => {
                    let owner = (service(s), port);
                    if let Ok(listen) = allocator.allocate(&owner.0, port) {
                        if let Some(before) = truth.insert(owner.clone(), listen) {
                            prop_assert_eq!(before, listen);
                        } else {
                            prop_assert!(!doubtful.contains(&listen));
                        }
                        prop_assert_eq!(truth.values().filter(|l| **l == listen).count(), 1);
                    }
                }
                Step::Release(s) => {
                    allocator.release_except(&service(s), &[]);
                    truth.retain(|owner, listen| {
                        if owner.0 == service(s) { doubtful.insert(*listen); }
                        owner.0 != service(s)
                    });
                }
                Step::Reclaim(s, port, listen) => {
                    let (owner, question) = ((service(s), port), allocator.question());
                    let had = truth.contains_key(&owner);
                    let held_for = HeldFor::from([(listen, Some(owner.clone()))]);
                    let reclaimed = allocator.reclaim(&question, &held_for, &owner.0, port);
                    prop_assert_eq!(reclaimed, (!had && doubtful.remove(&listen)).then_some(listen));
                    if reclaimed.is_some() {
                        truth.insert(owner, listen);
                    }
                }
                Step::Confirm(held) => {
                    let held: BTreeSet<_> = held.into_iter().collect();
                    let question = allocator.question();
                    allocator.confirm(&question, &held);
                    doubtful.retain(|port| held.contains(port));
                }
                Step::Rebuild => {
                    let mut records: BTreeMap<ServiceId, Vec<(u16, u16)>> = BTreeMap::new();
                    for ((service, port), listen) in &truth {
                        records.entry(service.clone()).or_default().push((*port, *listen));
                    }
                    let records = records.into_iter().map(|(service, ports)| Record { service, ports });
                    allocator = Allocator::new(100, 111, records);
                    doubtful = (100..=111).filter(|p| !truth.values().any(|l| l == p)).collect();
                }
            }
            prop_assert_eq!(allocator.used(), truth.len());
            prop_assert_eq!(allocator.free(), 12 - truth.len());
        }
    }
}

fn claimed(held_for: &HeldFor) -> (Allocator, Vec<Option<u16>>) {
    let records = [1, 2, 3].map(|i| Record { service: service(i), ports: vec![(80, 100)] });
    let mut allocator = Allocator::new(100, 101, records);
    let question = allocator.question();
    allocator.confirm(&question, &held_for.keys().copied().collect());
    for i in [1, 2, 3] {
        let claims = NoPort::Claimed(service(i), 80, 100);
        assert_eq!(allocator.allocate(&service(i), 80), Err(claims), "while nobody knows");
    }
    assert_eq!(allocator.in_doubt().next(), Some(100));
    allocator.settle_claims(&[100, 101], &question, held_for);
    let has = [1, 2, 3].map(|i| allocator.by_owner.get(&(service(i), 80)).copied());
    (allocator, has.into())
}

fn held(for_whom: &[(u16, Option<u8>)]) -> HeldFor {
    for_whom.iter().map(|(port, i)| (*port, i.map(|i| (service(i), 80)))).collect()
}

#[test]
fn of_those_who_claim_a_port_the_one_has_it_for_whom_it_is_held_and_each_has_what_is_held_for_it() {
    let has = |for_whom: &[_]| claimed(&held(for_whom)).1;
    assert_eq!(has(&[(100, Some(2))]), [None, Some(100), None]);
    assert_eq!(has(&[(100, Some(2)), (101, Some(1))]), [Some(101), Some(100), None]);
    assert_eq!(has(&[(101, Some(1))]), [Some(101), Some(100), None], "the oldest of those who have none");
    assert_eq!(has(&[(100, None), (101, Some(1))]), [Some(101), Some(100), None], "proxies differ");
    for nobody in [&[][..], &[(100, None)], &[(100, Some(4))], &[(101, Some(4))]] {
        assert_eq!(has(nobody), [Some(100), None, None], "the oldest: {nobody:?}");
    }
}

#[test]
fn who_claims_a_port_and_has_it_by_the_proxies_gets_no_other_that_one_of_them_still_holds_for_it() {
    let records = [1, 2].map(|i| Record { service: service(i), ports: vec![(80, 101)] });
    let mut allocator = Allocator::new(100, 101, records);
    let question = allocator.question();
    allocator.settle_claims(&[100, 101], &question, &held(&[(100, Some(2)), (101, Some(2))]));
    assert_eq!(allocator.by_owner, BTreeMap::from([((service(2), 80), 101)]));
}

#[test]
fn who_has_lost_a_claim_gets_another_port_and_who_gives_it_up_no_longer_claims() {
    let (mut allocator, _) = claimed(&HeldFor::new());
    assert_eq!(allocator.allocate(&service(2), 80), Ok(101));
    assert_eq!(allocator.allocate(&service(3), 80), Err(NoPort::Exhausted(service(3), 80)));

    let records = [1, 2].map(|i| Record { service: service(i), ports: vec![(80, 100), (81, 101)] });
    let mut allocator = Allocator::new(100, 101, records);
    let question = allocator.question();
    assert!(allocator.release_except(&service(1), &[81]), "whoever waits is to look again");
    assert_eq!(allocator.allocate(&service(2), 80), Ok(100), "nobody else claims it any more");
    assert!(allocator.allocate(&service(2), 81).is_err_and(|no_port| no_port.is_in_doubt()));
    allocator.settle_claims(&[100], &question, &HeldFor::new());
    let claims = Err(NoPort::Claimed(service(2), 81, 101));
    assert_eq!(allocator.allocate(&service(2), 81), claims, "it was not asked for");
    allocator.settle_claims(&[101], &question, &HeldFor::new());
    assert_eq!(allocator.allocate(&service(1), 81), Ok(101));
}

#[test]
fn a_port_outside_of_a_changed_range_is_replaced() {
    let mut allocator = confirmed(100, 109, vec![Record { service: service(1), ports: vec![(80, 5000)] }]);
    assert_eq!(allocator.allocate(&service(1), 80), Ok(100));
}

#[test]
fn a_port_outside_of_the_range_is_its_owners_while_there_is_no_other() {
    let one = Record { service: service(1), ports: vec![(80, 100), (81, 5000), (82, 5001)] };
    // Somebody has given it another's; of two claims the older counts.
    let two = Record { service: service(2), ports: vec![(80, 5000)] };
    let mut allocator = confirmed(100, 100, vec![one, two]);
    assert_eq!(allocator.allocate(&service(1), 80), Ok(100));
    let goes_on = allocator.allocate(&service(1), 81);
    assert_eq!(goes_on, Err(NoPort::Outside(service(1), 81, 5000)));
    assert_eq!(allocator.allocate(&service(2), 80), Err(NoPort::Exhausted(service(2), 80)));
    assert_eq!((allocator.used(), allocator.free()), (3, 0));
    assert_eq!(allocator.outside(&service(1), 81), Some(5000));

    assert!(allocator.release_except(&service(1), &[81]));
    assert_eq!(allocator.outside(&service(1), 82), None, "it was given back");
    let question = allocator.question();
    allocator.confirm(&question, &BTreeSet::new());
    assert_eq!(allocator.allocate(&service(1), 81), Ok(100));
    assert_eq!(allocator.outside(&service(1), 81), Some(5000), "until the new one is written");
    assert!(!allocator.release_except(&service(1), &[81]));
    assert_eq!(allocator.outside(&service(1), 81), None);
}

#[test]
fn early_reuse_is_avoided_and_exhaustion_names_the_service() {
    let mut allocator = confirmed(100, 102, vec![]);
    assert_eq!(allocator.allocate(&service(1), 80), Ok(100));
    allocator.release_except(&service(1), &[]);
    assert_eq!(allocator.allocate(&service(2), 80), Ok(101));
    assert_eq!(allocator.allocate(&service(3), 80), Ok(102));
    let waits = allocator.allocate(&service(4), 80).unwrap_err();
    assert!(matches!(waits, NoPort::InDoubt(..)), "{waits}");
    let question = allocator.question();
    allocator.confirm(&question, &BTreeSet::from([100]));
    assert!(allocator.allocate(&service(4), 80).is_err(), "a proxy still holds it");
    let question = allocator.question();
    allocator.confirm(&question, &BTreeSet::new());
    assert_eq!(allocator.allocate(&service(4), 80), Ok(100));
    let exhausted = allocator.allocate(&service(5), 80).unwrap_err().to_string();
    assert!(exhausted.contains("ns/s5") && exhausted.contains("listenPorts"), "{exhausted}");
}

#[test]
fn what_is_in_doubt_can_be_had_back_and_what_somebody_has_cannot() {
    let mut allocator = confirmed(100, 101, vec![]);
    let before = allocator.question();
    for i in [1, 2] {
        allocator.allocate(&service(i), 80).unwrap();
    }
    let held_for = HeldFor::from([(100, Some((service(3), 80))), (101, None)]);
    let reclaim = |allocator: &mut Allocator, question: &Question, i: u8| {
        allocator.reclaim(question, &held_for, &service(i), 80)
    };
    assert_eq!(reclaim(&mut allocator, &before, 3), None, "it is another's");
    allocator.release_except(&service(1), &[]);
    assert_eq!(reclaim(&mut allocator, &before, 3), None, "it was not in doubt when they were asked");
    let question = allocator.question();
    assert_eq!(reclaim(&mut allocator, &question, 4), None, "it is held for another");
    assert_eq!(reclaim(&mut allocator, &question, 3), Some(100));
    assert_eq!(allocator.allocate(&service(3), 80), Ok(100));
    assert_eq!(reclaim(&mut allocator, &question, 3), None, "it has it");
    allocator.release_except(&service(2), &[]);
    assert_eq!((allocator.used(), allocator.free()), (1, 1));
}

#[test]
fn an_answer_to_an_older_question_does_not_clear_a_later_release() {
    let mut allocator = confirmed(100, 100, vec![]);
    allocator.allocate(&service(1), 80).unwrap();
    allocator.release_except(&service(1), &[]);
    let question = allocator.question();
    let answer = BTreeSet::new();
    allocator.confirm(&question, &answer);
    allocator.allocate(&service(2), 80).unwrap();
    allocator.release_except(&service(2), &[]);
    allocator.confirm(&question, &answer);
    assert!(allocator.allocate(&service(3), 80).is_err());
}

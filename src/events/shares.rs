//! Who makes room: the share of an organisation in what events may take on disk.
//!
//! This is not [`base::shares::Shares`], where whoever adds makes others lose something in that
//! moment: here everything is added first, for an act and its event are one batch, and what is too
//! much goes later, in steps. What goes is the least precious of all that a tenant has, whatever any
//! of its principals did, who may be gone for years.

use std::collections::BTreeMap;

use base::OrgId;
use base::shares::level;

use super::Class;

/// What is to be removed to get below the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Excess {
    /// The class that loses its oldest events.
    pub class: Class,
    /// Whose they are.
    pub org: OrgId,
    /// How many bytes are to go, of this class, before it is looked again.
    pub bytes: u64,
}

/// What has to go first when all together take more than `limit`: of the tenant that is furthest
/// above its fair share, the least precious class that has something, and of this the organisation
/// that has most. An organisation that makes others below it gets no more by that.
///
/// The shares are max-min fair: who takes less than an equal share leaves the rest to the others,
/// so an organisation alone may use everything, and none loses anything by what another one does
/// as long as it is below its share.
pub(super) fn excess(
    used: &[((Class, OrgId), u64)],
    tenant: impl Fn(OrgId) -> OrgId,
    limit: u64,
) -> Option<Excess> {
    let total: u64 = used.iter().map(|(_, bytes)| bytes).sum();
    if total <= limit {
        return None;
    }
    let with_tenant = |((class, org), bytes): &_| (*class, *org, tenant(*org), *bytes);
    let used: Vec<(Class, OrgId, OrgId, u64)> = used.iter().map(with_tenant).collect();
    let mut of_tenants: BTreeMap<OrgId, u64> = BTreeMap::new();
    for (_, _, tenant, bytes) in &used {
        *of_tenants.entry(*tenant).or_default() += bytes;
    }
    let bytes: Vec<_> = of_tenants.values().copied().collect();
    let share = level(&bytes, limit);
    let (most, taken) = of_tenants.into_iter().max_by_key(|(_, bytes)| *bytes)?;
    let of_class = |wanted: Class| {
        let theirs = used
            .iter()
            .filter(|(class, _, tenant, bytes)| *class == wanted && *tenant == most && *bytes > 0);
        theirs.max_by_key(|(.., bytes)| *bytes).map(|(class, org, _, bytes)| (*class, *org, *bytes))
    };
    let (class, org, bytes) = Class::LEAST_PRECIOUS_FIRST.into_iter().find_map(of_class)?;
    let above = taken.saturating_sub(share).min(total - limit).max(1);
    Some(Excess { class, org, bytes: above.min(bytes) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn org(number: u8) -> OrgId {
        OrgId::from_bytes([number; 12])
    }

    /// Removes until it fits, as housekeeping does.
    fn trimmed(mut used: Vec<((Class, OrgId), u64)>, limit: u64) -> Vec<((Class, OrgId), u64)> {
        while let Some(excess) = excess(&used, |org| org, limit) {
            let place = used.iter_mut().find(|(key, _)| *key == (excess.class, excess.org));
            let (_, bytes) = place.expect("somebody who has something");
            assert!((1..=*bytes).contains(&excess.bytes));
            *bytes -= excess.bytes;
        }
        used
    }

    fn of(used: &[((Class, OrgId), u64)], class: Class, number: u8) -> u64 {
        used.iter().filter(|(key, _)| *key == (class, org(number))).map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn who_floods_loses_and_refusals_go_before_administration() {
        use Class::{Administration, Refusals};
        let used = vec![
            ((Administration, org(1)), 300),
            ((Refusals, org(1)), 5000),
            ((Administration, org(2)), 200),
            ((Refusals, org(2)), 100),
        ];
        let left = trimmed(used, 1000);
        assert_eq!((of(&left, Administration, 2), of(&left, Refusals, 2)), (200, 100));
        assert_eq!((of(&left, Administration, 1), of(&left, Refusals, 1)), (300, 400));
    }

    #[test]
    fn alone_it_may_have_everything() {
        assert_eq!(excess(&[((Class::Refusals, org(1)), 1000)], |org| org, 1000), None);
        assert_eq!(level(&[100, 900, 900], 1000), 450);
    }

    #[test]
    fn organisations_of_one_tenant_share_what_it_may_have() {
        use Class::{Administration, Refusals};
        let mut used = vec![((Administration, org(100)), 300)];
        used.extend((0..50).map(|number| ((Administration, org(number)), 20)));
        used.push(((Refusals, org(7)), 10));
        let tenant = |number: OrgId| if number == org(100) { number } else { org(0) };
        let first = excess(&used, tenant, 800).expect("too much");
        assert_eq!((first.class, first.org, first.bytes), (Refusals, org(7), 10));
        used.pop();
        let next = excess(&used, tenant, 800).expect("too much");
        assert!(next.org != org(100) && next.bytes == 20, "{next:?}");
        assert_eq!(excess(&used, |org| org, 800).expect("too much").org, org(100));
    }

    proptest! {
        #[test]
        fn nobody_below_an_equal_share_loses_anything(
            sizes in proptest::collection::vec((0_u64..1000, 0_u64..1000), 1..8),
            limit in 1_u64..4000,
        ) {
            let used: Vec<_> = sizes.iter().enumerate().flat_map(|(index, (admin, refused))| {
                let org = org(index as u8);
                [((Class::Administration, org), *admin), ((Class::Refusals, org), *refused)]
            }).collect();
            let left = trimmed(used.clone(), limit);
            prop_assert!(left.iter().map(|(_, bytes)| bytes).sum::<u64>() <= limit);
            for (index, (admin, refused)) in sizes.iter().enumerate() {
                let number = index as u8;
                let now = [Class::Administration, Class::Refusals].map(|c| of(&left, c, number));
                if admin + refused <= limit / sizes.len() as u64 {
                    prop_assert_eq!(now, [*admin, *refused]);
                }
                if now[0] < *admin {
                    prop_assert_eq!(now[1], 0, "administration goes last");
                }
            }
        }
    }
}

//! Real sessions of a hub and some replicas of the model, under random schedules:
//! see [`World`].
//!
//! `CAIRN_SEEDS=n` runs `n` seeds, `CAIRN_SEED=x` that one only, and tells what
//! happens.

use cairn_protocol::testing::{ModelClient, ModelHub, World};

type Model = World<ModelHub, ModelClient>;

fn run(seed: u64) -> Result<[u8; 32], String> {
    let mut world = Model::new(seed, false);
    world.run()?;
    Ok(world.trace())
}

fn tell(seed: u64, why: &str) -> ! {
    let mut world = Model::new(seed, true);
    let again = world.run();
    for line in world.story() {
        println!("{line}");
    }
    panic!("CAIRN_SEED={seed}: {why} (again: {again:?})");
}

#[test]
fn i1_to_i7_hold_under_random_schedules_of_sessions() {
    for seed in crate::simulation::seeds(2_000) {
        match (run(seed), run(seed)) {
            (Ok(trace), again) => assert_eq!(Ok(trace), again, "CAIRN_SEED={seed}"),
            (Err(why), _) => tell(seed, &why),
        }
    }
}

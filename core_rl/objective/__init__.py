"""What is optimised: rewards, advantages, losses, KL and the curriculum of phases."""

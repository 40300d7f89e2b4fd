"""ParticleForge: from collision simulation to a deployed machine-learned particle-flow model."""

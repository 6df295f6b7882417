"""Fine-tuning: what is trained, on whom, with which prompts, and what came of it."""

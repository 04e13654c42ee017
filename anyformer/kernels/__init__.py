"""Fast forms of what is defined plainly elsewhere; each agrees with its plain form in outputs and gradients."""

"""The offline stages, one file a method, and the plan that orders them."""

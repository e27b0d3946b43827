"""Supply: products, sales, the admin that runs a sale day, the gate and its Lua."""

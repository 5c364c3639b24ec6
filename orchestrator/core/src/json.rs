//! JSON from outside: parsed under limits, and free of what PostgreSQL would refuse later.

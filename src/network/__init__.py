"""Parts of the network: layers, interactions, embedding tables, and the operators that compute them."""

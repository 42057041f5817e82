"""The screens: each shows what it is given and sends back what the user wants."""

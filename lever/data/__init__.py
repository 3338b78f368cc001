"""Questions, pictures, pools of demonstrations, and the generated world."""

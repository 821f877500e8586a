"""Does a model keep the contract that every number rests on?"""
